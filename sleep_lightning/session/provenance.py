"""What is in a memory, and where it came from: a line per window, and the texts where the caller keeps them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNLABELLED = "unlabelled"
"""The source of what the caller gives no label."""
ANSWER = "answer"
"""The source of tokens that the model has generated."""
BEGIN = "begin"
"""The source of the tokens that a tokenizer has before a session's first text."""
Runs = tuple[tuple[str, int], ...]
"""Consecutive tokens by source: (label, how many)."""


@dataclass(frozen=True)
class WindowLine:
    """A window that was closed.

    Attributes:
        time: when, in seconds since 1970.
        sources: its tokens that went into the memory, by source label.
        left_out: its tokens that were read and not consolidated, by source label (``WritePolicy``).
        n_passes: passes over it in all; 0: nothing of it was consolidated.
        change: ``|S' - S| / |S'|`` over all fast weights.
        hash: SHA-256 over the hash of the line before, the token ids, their sources and ``n_passes``.
    """

    time: float
    sources: dict[str, int]
    left_out: dict[str, int]
    n_passes: int
    change: float
    hash: str

    @property
    def tokens(self) -> int:
        """Tokens that were consolidated."""
        return sum(self.sources.values())


@dataclass(frozen=True)
class Read:
    """Tokens that were read together."""

    time: float
    source: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Slept:
    """A window that was closed by a call (None passes: as many as usual); ``stopped_after`` so many, by a stop."""

    time: float
    n_passes: int | None
    stopped_after: int | None


def added(runs: Runs, source: str, tokens: int) -> Runs:
    """Runs with more tokens behind them."""
    if runs and runs[-1][0] == source:
        return (*runs[:-1], (source, runs[-1][1] + tokens))
    return (*runs, (source, tokens))


def labels(runs: Runs) -> list[str]:
    """The source of each token."""
    return [source for source, n in runs for _ in range(n)]


def counted(sources: Iterable[str]) -> dict[str, int]:
    """Tokens by source, in the order of their first."""
    counts: dict[str, int] = {}
    for source in sources:
        counts[source] = counts.get(source, 0) + 1
    return counts


def chain_hash(before: str, tokens: Sequence[int], runs: Runs, n_passes: int) -> str:
    """The hash of a line."""
    content = json.dumps([before, list(tokens), runs, n_passes], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()
