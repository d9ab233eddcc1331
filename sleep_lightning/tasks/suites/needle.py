"""Needles in a haystack (the variants of RULER, arXiv:2404.06654): codes of things, stated once among filler.

``single``: one thing, one code. ``multi_key``: the codes of other things stand in the text, too. ``multi_value``: a
thing has several codes, all to be told in their order. ``multi_query``: the codes of several things are asked for at
once. With ``haystack=needles`` the filler itself consists of codes of things that are not asked for.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from sleep_lightning.tasks.suites.filler import all_filler, draw_filler, named
from sleep_lightning.tasks.suites.source import SuiteKeys, SuiteSource, listed
from sleep_lightning.tasks.suites.stretch import Asked, Plot
from sleep_lightning.tasks.suites.task import build_suite
from sleep_lightning.tasks.text.row import Question
from sleep_lightning.tasks.text.task import RowTask

KINDS = ("single", "multi_key", "multi_value", "multi_query")
"""The slice ``kind`` counts from 0 in this order."""
_FIRST = named(
    "amber, brass, chalk, copper, crimson, dusty, ebony, faded, gilded, hollow, iron, ivory, jade, linen, marble, "
    "narrow, oaken, pewter, russet, silver, striped, tin, velvet, woven"
)
_SECOND = named(
    "anvil, barrel, basket, beacon, candle, carpet, chest, compass, drum, fiddle, goblet, hammer, kettle, ladder, "
    "lamp, lantern, mirror, needle, paddle, saddle, spoon, statue, trumpet, wheel"
)
THINGS = tuple(f"{a} {b}" for a, b in product(_FIRST, _SECOND))


@dataclass
class NeedleConfig(SuiteKeys):
    name: str = "needle"
    """Name of the task."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Kinds of question, of single, multi_key, multi_value and multi_query; each row draws one."""
    n_keys: int = field(default=4, metadata={"high": 2**10})
    """Things with a code in multi_key and multi_query."""
    n_values: int = field(default=3, metadata={"high": 2**10})
    """Codes of the thing in multi_value."""
    n_queries: int = field(default=2, metadata={"high": 2**10})
    """Things asked for at once in multi_query."""
    digits: int = field(default=2, metadata={"high": 9})
    """Digits of a code."""
    haystack: Literal["noise", "prose", "needles"] = "prose"
    """Filler: five short sentences over and over, sentences that hardly return, or codes of other things."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ValueError(f"task.kinds={self.kinds} must list one or more of {', '.join(KINDS)}")
        if not 1 <= self.n_queries <= self.n_keys < len(THINGS):
            raise ValueError(
                f"task.n_queries={self.n_queries} and task.n_keys={self.n_keys} must be from 1, the first no more than "
                f"the second, which is less than {len(THINGS)}"
            )
        if not 1 <= self.digits <= 9 or not 1 <= self.n_values <= 9 * 10 ** (self.digits - 1):
            raise ValueError(
                f"task.digits={self.digits} must be from 1 to 9 and allow for task.n_values={self.n_values} codes, of "
                f"which there must be at least 1"
            )

    def build(self) -> RowTask:
        return build_suite(self, NeedleSource)


class NeedleSource(SuiteSource[NeedleConfig]):
    """Splits share no needle that is asked for: the same thing with the same codes."""

    config = NeedleConfig

    def plot(self, rng: random.Random) -> Plot:
        """See ``SuiteSource``."""
        c, kind = self.keys, rng.choice(self.keys.kinds)
        things = rng.sample(THINGS, c.n_keys if kind in ("multi_key", "multi_query") else 1)
        needles = [(thing, self._code(rng)) for thing in things]
        if kind == "multi_value":
            codes = rng.sample(range(10 ** (c.digits - 1), 10**c.digits), c.n_values)
            needles = [(things[0], str(code)) for code in codes]
        rng.shuffle(needles)
        asked = things[: c.n_queries if kind == "multi_query" else 1]
        answer = ", ".join(code for thing in asked for name, code in needles if name == thing)
        last = max(i for i, (thing, _) in enumerate(needles) if thing in asked)
        text = f"\nQuestion: {_ask(asked, several=kind == 'multi_value')}"
        question = Question(text, f" {answer}", {"kind": KINDS.index(kind)})
        key = repr(sorted(needle for needle in needles if needle[0] in asked))
        events = [_state(*needle) for needle in needles]
        return Plot(key, events, [Asked(question, last)], lambda: self._filler(rng, things))

    def _code(self, rng: random.Random) -> str:
        return str(rng.randrange(10 ** (self.keys.digits - 1), 10**self.keys.digits))

    def _filler(self, rng: random.Random, things: list[str]) -> str:
        if self.keys.haystack != "needles":
            return draw_filler(rng, self.keys.haystack)
        while (thing := rng.choice(THINGS)) in things:
            pass
        return _state(thing, self._code(rng))

    @staticmethod
    def words(keys: NeedleConfig) -> Iterator[str]:
        """See ``SuiteSource``."""
        yield from () if keys.haystack == "needles" else all_filler(keys.haystack)
        yield from THINGS
        for several in (False, True):
            yield (
                _state("", "") + _ask(["", "", ""], several=several) + _ask([""], several=several) + "Question: Answer:"
            )

    @staticmethod
    def max_number(keys: NeedleConfig) -> int:
        """See ``SuiteSource``."""
        return int(10**keys.digits) - 1


def _state(thing: str, code: str) -> str:
    return f" A code of the {thing} is {code}."


def _ask(things: list[str], *, several: bool) -> str:
    names = listed([f"the {thing}" for thing in things])
    if several:
        return f"What are all codes of {names}, in their order?"
    return f"What are the codes of {names}?" if len(things) > 1 else f"What is the code of {names}?"
