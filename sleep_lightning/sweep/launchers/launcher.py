"""The interface between a supervisor and whatever trains its runs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from sleep_lightning.runs.infrastructure import Ended
from sleep_lightning.runs.process import FitProcess

LOOK_SECONDS = 0.05
"""Between two polls of runs that were asked to stop."""


class Launcher(ABC):
    """Trains runs somewhere. A run is identified by its directory, so that a new supervisor finds a dead one's.

    Attributes:
        events: what happened, a line each, taken by the supervisor.
    """

    def __init__(self) -> None:
        self.events: list[str] = []

    @abstractmethod
    def submit(self, run: FitProcess) -> None:
        """Start or resume the run; if it is running already, adopt it. Raises OSError if the machine cannot."""

    @abstractmethod
    def poll(self, run: FitProcess) -> Ended | None:
        """None while a submitted run waits or is running; after its end, how it ended.

        Whether it has finished is decided by ``run.summary`` alone.
        """

    @abstractmethod
    def signal(self, run: FitProcess) -> None:
        """Ask the run to save and stop."""

    @abstractmethod
    def cancel(self, run: FitProcess) -> None:
        """Kill the run."""

    def stop(self, runs: Sequence[FitProcess], seconds: float = 60.0) -> None:
        """Stop runs and wait for their ends: asked to save first, killed if still running after so many seconds."""
        for run in runs:
            self.signal(run)
        left = self._wait(runs, seconds)
        for run in left:
            self.cancel(run)
        self._wait(left, seconds)

    def close(self) -> None:
        """The sweep has ended: nothing more will be submitted."""
        return

    def _wait(self, runs: Sequence[FitProcess], seconds: float) -> list[FitProcess]:
        """Those still running after so many seconds."""
        left, deadline = list(runs), time.monotonic() + seconds
        while left := [run for run in left if self.poll(run) is None]:
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
        return left
