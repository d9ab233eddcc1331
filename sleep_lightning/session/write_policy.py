"""Which sources may be slept on: what may write to a memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sleep_lightning.session.provenance import BEGIN, Runs
from sleep_lightning.sleep.config import MOST_PASSES


@dataclass(frozen=True)
class WritePolicy:
    """Passes over the tokens of each source; of those with 0 nothing is consolidated.

    Such tokens are read, and answers see them as long as their window is open. When it closes, the memory becomes what
    it would be had the others stood there alone.

    Attributes:
        passes: by source label, the passes over a window that holds its tokens: the fewest of all sources in it.
        others: the same of sources that are not listed.
    """

    passes: Mapping[str, int] = field(default_factory=dict)
    others: int = 0

    def __post_init__(self) -> None:
        for source, n in {**self.passes, "other sources": self.others}.items():
            if type(n) is not int or not 0 <= n <= MOST_PASSES:
                raise ValueError(f"writes: {source} may have {n!r} passes; give a whole number from 0 to {MOST_PASSES}")

    def of(self, source: str) -> int:
        """Passes over tokens of a source."""
        return self.passes.get(source, self.others)

    def of_window(self, runs: Runs) -> int:
        """Passes over what may be consolidated of a window: 0 if nothing may."""
        return min((n for source, _ in runs if not self._follows(source) and (n := self.of(source))), default=0)

    def kept(self, sources: Sequence[str]) -> list[bool]:
        """Which tokens of a window may be consolidated, by their sources; the beginning of a session if others may."""
        alone = [not self._follows(source) and self.of(source) > 0 for source in sources]
        return [any(alone) if self._follows(source) else may for source, may in zip(sources, alone, strict=True)]

    def _follows(self, source: str) -> bool:
        """Whether a source goes with the others of its window."""
        return source == BEGIN and source not in self.passes
