"""A plot, and how it is stretched by filler until its context fills a number of tokens."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from sleep_lightning.tasks.text.row import Question, TextRow

QUARTERS = 4
"""Values of the slice ``depth``: in which quarter of the context the evidence ends."""
_MISSES = 12
"""Fillers in a row that are too long for what is left, before it is left."""

Measure = Callable[[str], int]
"""Tokens of a text."""


@dataclass(frozen=True)
class Asked:
    """A question and the event with which it can be answered (index; -1: the head)."""

    question: Question
    evidence: int


@dataclass(frozen=True)
class Plot:
    """What a row is about, before it is stretched.

    Attributes:
        key: what the answers follow from; rows of one key belong to one split.
        events: texts in their order.
        asked: questions on them.
        filler: draws a text that changes no answer.
        head: stands first.
        finish: rewrites all texts together, none much longer than it was (time stamps, say).
    """

    key: str
    events: Sequence[str]
    asked: Sequence[Asked]
    filler: Callable[[], str]
    head: str = ""
    finish: Callable[[list[str]], list[str]] = list


class Stretch:
    """Makes rows of plots: events in order, spread evenly among as much filler as the context holds.

    Args:
        measure: tokens of a text.
    """

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        alone = measure(".")
        # what a text adds behind a full stop: some tokenizers begin every text with a token of its own
        self._size = lru_cache(2**16)(lambda text: measure(f".{text}") - alone)

    def shortest(self, plot: Plot) -> int:
        """Tokens of the context without filler."""
        return self._measure("".join(plot.finish([plot.head, *plot.events])))

    def __call__(self, rng: random.Random, plot: Plot, tokens: int) -> TextRow:
        """The row of a plot that is no longer than ``tokens``: fewer than any filler has are left of these."""
        fillers, full, left = list[str](), False, tokens - self.shortest(plot)
        assert left >= 0, "a plot longer than its context"
        self._fill(plot, fillers, left)
        while True:
            places = sorted(rng.sample(range(len(fillers) + len(plot.events)), len(plot.events)))
            row = _row(plot, plot.finish([plot.head, *_spread(plot.events, fillers, places)]), places)
            # the tokens of the whole may be more or fewer than those of its parts: measured, and filled again
            left = tokens - self._measure(row.context)
            if left < 0:
                full = True
                while left < 0 and fillers:
                    left += self._size(fillers.pop())
            elif full or not self._fill(plot, fillers, left):
                return row

    def _fill(self, plot: Plot, fillers: list[str], left: int) -> bool:
        """Add fillers that are ``left`` tokens long at most; whether there was one."""
        misses, before = 0, len(fillers)
        while left and misses < _MISSES:
            text = plot.filler()
            if 0 < (size := self._size(text)) <= left:  # of a text that adds no token there could be any number
                fillers.append(text)
                left, misses = left - size, 0
            else:
                misses += 1
        return len(fillers) > before


def _spread(events: Sequence[str], fillers: Sequence[str], places: Sequence[int]) -> list[str]:
    """Events at their places, fillers at the others."""
    at, rest = dict(zip(places, events, strict=True)), iter(fillers)
    return [at[i] if i in at else next(rest) for i in range(len(events) + len(fillers))]


def _row(plot: Plot, texts: Sequence[str], places: Sequence[int]) -> TextRow:
    context = "".join(texts)

    def depth(asked: Asked) -> int:
        last = 0 if asked.evidence < 0 else places[asked.evidence] + 1
        end = sum(len(text) for text in texts[: last + 1])
        return min(QUARTERS - 1, end * QUARTERS // max(1, len(context)))

    questions = (replace(a.question, slices={**a.question.slices, "depth": depth(a)}) for a in plot.asked)
    return TextRow((context, *questions))
