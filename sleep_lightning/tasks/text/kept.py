"""Alternatives to a memory: rows whose context is cut down to what retrieval would find in it, or a summary keep of it.

The context is cut into units (entries that begin a line with ``[``, or else sentences and lines) and these are put
into windows. ``bm25``: of the evicted windows those that BM25 finds for the questions. ``summary``: extractive; when a
window is evicted, of its units and those carried so far the ones with the rarest words stay, without knowing any
question.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from math import log
from typing import Any, Literal

from sleep_lightning.refusals import UnusableRow
from sleep_lightning.tasks.task import Split
from sleep_lightning.tasks.text.row import RowSource, TextRow

Kept = Literal["all", "bm25", "summary"]
Measure = Callable[[str], int]

_ENTRY = re.compile(r"(?=\n\[)")
_SENTENCE = re.compile(r"(?<=[.!?])(?=\s)|(?=\n)")


class KeptRows:
    """A ``RowSource`` whose rows are those of another with less context.

    Args:
        source: of whole rows.
        kept: what is kept of a context.
        windows: k: windows found by ``bm25``, or the length of the ``summary`` in windows.
        window_tokens: tokens of a window.
        measure: tokens of a text.
        together: refuse rows that ask nothing, or read on behind a question.

    Raises:
        ValueError: bm25 without its library.
    """

    def __init__(
        self,
        source: RowSource,
        kept: Literal["bm25", "summary"],
        windows: int,
        window_tokens: int,
        measure: Measure,
        *,
        together: bool = False,
    ) -> None:
        self._source, self._kept, self._windows = source, kept, windows
        self._tokens, self._measure, self._together = window_tokens, measure, together
        if kept == "bm25":
            _bm25s()
        if (ordered := getattr(source, "ordered", None)) is not None:
            self.ordered = lambda split, start, n: [self._cut(row) for row in ordered(split, start, n)]

    def draw(self, rng: random.Random, split: Split) -> TextRow:
        """See ``RowSource``."""
        return self._cut(self._source.draw(rng, split))

    def _cut(self, row: TextRow) -> TextRow:
        asked = " ".join(question.text for question in row.questions)
        if self._together and (not asked or any(isinstance(part, str) for part in row.parts[1:])):
            raise UnusableRow(
                f"{row.origin}: task.kept={self._kept} is for questions behind one context, and this record has "
                f"{'another order' if asked else 'none'}; use all"
            )
        return replace(row, parts=tuple(self._keep(p, asked) if isinstance(p, str) else p for p in row.parts))

    def _keep(self, context: str, asked: str) -> str:
        windows = cut(context, self._tokens, self._measure)
        if self._kept == "summary":
            return "".join(summary(windows, self._windows * self._tokens, self._measure))
        scores = bm25(["".join(window) for window in windows], asked)
        best = sorted(range(len(windows)), key=lambda i: (scores[i], i))[-self._windows :]
        return "".join(unit for i in sorted(best) for unit in windows[i])


def cut(context: str, tokens: int, measure: Measure) -> list[list[str]]:
    """The units of a text in windows of so many tokens; only a longer unit makes a longer window."""
    units = (_ENTRY if "\n[" in context else _SENTENCE).split(context)
    windows, left = list[list[str]](), 0
    for unit in filter(None, units):
        left -= (size := measure(unit))
        if left < 0 or not windows:  # a first unit may be no token
            windows.append([])
            left = tokens - size
        windows[-1].append(unit)
    return windows


def bm25(texts: Sequence[str], asked: str) -> list[float]:
    """BM25 scores of texts for a question, their words in lower case (Lucene's idf; k1 1.5, b 0.75)."""
    corpus = [_words(text) for text in texts]
    known = [word for word in _words(asked) if any(word in words for words in corpus)]
    if not known:  # of texts without a word no index can be made
        return [0.0] * len(texts)
    index = _bm25s().BM25(method="lucene", k1=1.5, b=0.75)
    index.index(corpus, show_progress=False)
    return list(map(float, index.get_scores(known)))


def summary(windows: Sequence[Sequence[str]], tokens: int, measure: Measure) -> list[str]:
    """Units carried over all windows, in their order, no more than so many tokens.

    At every eviction those stay whose words are the rarest so far: by the mean of log(units / units with the word).
    """
    carried, found, n = list[str](), Counter[str](), 0
    for window in windows:
        candidates = [*carried, *window]
        for unit in window:
            found.update(set(_words(unit)))
        n += len(window)
        rarity = [_mean(log(n / found[word]) for word in set(_words(unit))) for unit in candidates]
        left, chosen = tokens, set[int]()
        for i in sorted(range(len(candidates)), key=lambda i: (rarity[i], i), reverse=True):
            if (size := measure(candidates[i])) <= left:
                left -= size
                chosen.add(i)
        carried = [candidates[i] for i in sorted(chosen)]
    return carried


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _mean(values: Iterator[float]) -> float:
    numbers = list(values)
    return sum(numbers) / max(1, len(numbers))


def _bm25s() -> Any:
    try:
        return import_module("bm25s")
    except ImportError as error:
        raise ValueError(
            "task.kept=bm25 needs bm25s: pip install 'sleep-lightning[retrieval]'; or use summary or all"
        ) from error
