"""What the text suites share: lengths in windows, splits by evidence, words for a closed vocabulary."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from sleep_lightning.tasks.dealing import split_of
from sleep_lightning.tasks.suites.stretch import Measure, Plot, Stretch
from sleep_lightning.tasks.task import Split
from sleep_lightning.tasks.text.row import TextRow

_TRIES = 10_000
"""Plots drawn before a split is said to have none that fits: of a fair hash one in sixteen belongs to it."""
_PROBES = 32
"""Plots that are drawn to see whether they fit the shortest context."""


@dataclass
class SuiteKeys:
    """Keys of every text suite."""

    windows: list[int] = field(default_factory=lambda: [4], metadata={"high": 2**16})
    """Windows of context; each row draws one of these numbers. Filler fills them up."""
    window_tokens: int = field(default=64, metadata={"high": 2**24})
    """Tokens of a window (the L of sleep.window_size)."""

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 1 or len(set(self.windows)) < len(self.windows):
            raise ValueError(f"task.windows={self.windows} must list different numbers >= 1, for example [1, 4]")
        if self.window_tokens < 2:
            raise ValueError(f"task.window_tokens={self.window_tokens} must be at least 2")


Keys = TypeVar("Keys", bound=SuiteKeys)


class SuiteSource(ABC, Generic[Keys]):
    """A ``RowSource`` that stretches plots. Subclasses draw these and list the words they use.

    Args:
        keys: of the suite.
        measure: tokens of a text.

    Raises:
        ValueError: if hardly a plot fits the shortest context.
    """

    def __init__(self, keys: Keys, measure: Measure) -> None:
        self.keys, self._stretch = keys, Stretch(measure)
        least = min(keys.windows) * keys.window_tokens
        rng = random.Random(0)
        sizes = sorted(self._stretch.shortest(self.plot(rng)) for _ in range(_PROBES))
        if sizes[-1] > least:
            raise ValueError(
                f"task.windows={keys.windows} with task.window_tokens={keys.window_tokens} gives contexts of {least} "
                f"tokens, and those of task.name={self.name} take up to {sizes[-1]} without filler; use more or longer "
                f"windows, or ask for less"
            )

    name: str
    """Of the task."""

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
        tokens = windows * self.keys.window_tokens
        for _ in range(_TRIES):
            plot = self.plot(rng)
            if split_of(plot.key) == split and self._stretch.shortest(plot) <= tokens:
                return replace(self._stretch(rng, plot, tokens), slices={"windows": windows})
        raise ValueError(
            f"task.name={self.name}: none of {_TRIES} rows belongs to split {split} and fits {tokens} tokens; use more "
            f"names or values, or longer windows"
        )


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
