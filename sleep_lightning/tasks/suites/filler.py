"""Sentences that say nothing about what is asked: the hay among which the suites hide their evidence."""

import random
from collections.abc import Iterator
from typing import Literal

from sleep_lightning.tasks.gsm_infinite.draw import pick


def named(text: str) -> tuple[str, ...]:
    """Names that are listed with commas."""
    return tuple(text.split(", "))


Haystack = Literal["noise", "prose"]
"""noise: five short sentences over and over; prose: sentences about the country, hardly one of which returns."""

NOISE = (
    " The rain falls.",
    " The hills are far away.",
    " A bell rings.",
    " Then it is quiet.",
    " Nothing else is said.",
)
_WHO = named(
    "the old miller, a grey heron, the evening train, a tired ferryman, the north wind, a young shepherd, "
    "the last bus, an empty boat, the night watch, a stray dog, the first snow, a flock of geese, the village choir, "
    "a slow river, the postman, a heavy cloud, the lighthouse keeper, a band of travellers, the morning fog, "
    "an open gate"
)
_DOES = named(
    "waits beside, passes slowly by, turns away from, comes down to, stays close to, looks across at, leaves behind, "
    "circles around, settles over, drifts towards, sings about, returns to, rests below, walks along, remembers"
)
_WHAT = named(
    "the stone bridge, the frozen lake, a field of barley, the chapel ruins, a row of poplars, the salt marsh, "
    "the quarry, a winding lane, the orchard wall, the far shore, a wooden pier, the sleeping town, the watermill, "
    "the pine forest, a broken fence, the railway cutting"
)
_WHEN = ("", " at dusk", " before sunrise", " all winter", " once more", " as every year", " without a sound", " again")


def draw_filler(rng: random.Random, haystack: Haystack) -> str:
    """A sentence, a space before it."""
    if haystack == "noise":
        return pick(rng, NOISE)
    who, does, what, when = (pick(rng, words) for words in (_WHO, _DOES, _WHAT, _WHEN))
    return f" {who[0].upper()}{who[1:]} {does} {what}{when}."


def all_filler(haystack: Haystack) -> Iterator[str]:
    """Texts that hold every word that filler may have."""
    yield from (
        NOISE if haystack == "noise" else (*(f"{who[0].upper()}{who[1:]}" for who in _WHO), *_DOES, *_WHAT, *_WHEN)
    )
