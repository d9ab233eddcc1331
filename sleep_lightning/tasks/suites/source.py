"""What the text suites share: lengths in windows, splits by evidence, words for a closed vocabulary."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

from sleep_lightning.tasks.dealing import split_of
from sleep_lightning.tasks.suites.stretch import Measure, Plot, Stretch
from sleep_lightning.tasks.task import Split
from sleep_lightning.tasks.text.kept import Kept
from sleep_lightning.tasks.text.row import TextRow
from sleep_lightning.tasks.text.task import Asked
from sleep_lightning.tasks.tokenizer import anchored
from sleep_lightning.tasks.word_tokenizer import WORDS

_TRIES = 10_000
"""Plots drawn before a split is said to have none that fits: of a fair hash one in sixteen belongs to it."""
_PROBES = 32
"""Plots that are drawn to see whether they fit the shortest context."""


@dataclass
class SuiteKeys:
    """Keys of every text suite."""

    name: str = ""
    """Name of the task."""
    windows: list[int] = field(default_factory=lambda: [4], metadata={"high": 2**16})
    """Windows of context; each row draws one of these numbers. Filler fills them up."""
    window_tokens: int = field(default=64, metadata={"high": 2**24})
    """Tokens of a window (the L of sleep.window_size)."""
    question: Asked = "behind"
    """Where the question stands: behind the context, before it, or one of the two drawn for each row."""
    question_tokens: int = field(default=32, metadata={"high": 2**24})
    """Tokens of all questions of a row with their answers, behind the context."""
    tokenizer: str = "words"
    """words: a token for every word of the suite; bytes; else the name or directory of a Hugging Face tokenizer."""
    kept: Kept = "all"
    """Of the context: all; what bm25 finds for the questions; or an extractive summary (controls: no memory needed)."""
    kept_windows: int = field(default=1, metadata={"high": 2**16})
    """Windows that bm25 finds, or that a summary takes."""

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 1 or len(set(self.windows)) < len(self.windows):
            raise ValueError(f"task.windows={self.windows} must list different numbers >= 1, for example [1, 4]")
        for key, least in (("window_tokens", 2), ("question_tokens", 2), ("kept_windows", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"task.{key}={getattr(self, key)} must be at least {least}")

    def anchored(self) -> Self:
        """The same with an absolute path of a tokenizer's directory."""
        return self if self.tokenizer == WORDS else replace(self, tokenizer=anchored(self.tokenizer))


Keys = TypeVar("Keys", bound=SuiteKeys)


class SuiteSource(ABC, Generic[Keys]):
    """A ``RowSource`` that stretches plots. Subclasses draw these and list the words they use.

    Args:
        keys: of the suite.
        measure: tokens of a text.
        reserved: tokens that the tokenizer puts before a context.

    Raises:
        ValueError: if plots do not fit the shortest context, or their questions ``question_tokens``.
    """

    def __init__(self, keys: Keys, measure: Measure, reserved: int = 0) -> None:
        self.keys, self._measure, self._stretch = keys, measure, Stretch(measure)
        self._reserved = reserved
        rng = random.Random(0)
        plots = [self.plot(rng) for _ in range(_PROBES)]
        longest, least = max(map(self._stretch.shortest, plots)), self._tokens(min(keys.windows))
        if longest > least:
            raise ValueError(
                f"task.windows={keys.windows} with task.window_tokens={keys.window_tokens} gives contexts of {least} "
                f"tokens, and those of task.name={keys.name} take up to {longest} without filler; use more or longer "
                f"windows, or ask for less"
            )
        asked = max(map(self._asked, plots))
        if asked > keys.question_tokens:
            raise ValueError(
                f"task.question_tokens={keys.question_tokens} is too few: questions of task.name={keys.name} and their "
                f"answers take up to {asked}, none more than a window; raise it, and task.window_tokens with it"
            )

    config: ClassVar[type[Any]]
    """The class of the keys."""

    @abstractmethod
    def plot(self, rng: random.Random) -> Plot:
        """What a row is about."""

    @staticmethod
    @abstractmethod
    def words(keys: Keys) -> Iterator[str]:
        """Texts that hold every word the suite may use with these keys, but for numbers."""

    @staticmethod
    def max_number(keys: Keys) -> int:
        """The largest number that a row may hold."""
        return 99

    def draw(self, rng: random.Random, split: Split) -> TextRow:
        """See ``RowSource``. Draws plots until one belongs to the split and fits.

        Raises:
            ValueError: after very many that do not.
        """
        windows = rng.choice(self.keys.windows)
        for _ in range(_TRIES):
            plot = self.plot(rng)
            if split_of(plot.key) == split and self._fits(plot, windows):
                return replace(self._stretch(rng, plot, self._tokens(windows)), slices={"windows": windows})
        raise ValueError(
            f"task.name={self.keys.name}: none of {_TRIES} rows belongs to split {split} and fits {windows} windows; "
            f"use more names or values, or longer windows"
        )

    def _tokens(self, windows: int) -> int:
        return windows * self.keys.window_tokens - self._reserved

    def _fits(self, plot: Plot, windows: int) -> bool:
        return self._stretch.shortest(plot) <= self._tokens(windows) and self._asked(plot) <= self.keys.question_tokens

    def _asked(self, plot: Plot) -> int:
        """Tokens that the questions take, each in one window (a question too long for one takes them all)."""
        L, taken = self.keys.window_tokens, 0
        for question in (asked.question for asked in plot.asked):
            size = self._measure(question.text + question.cue) + self._measure(question.answer) + 1
            if size - 1 > L:
                return size + self.keys.question_tokens
            if taken and taken % L + size > L:
                taken += -taken % L
            taken += size
        return taken - 1  # the last end token is not read


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
