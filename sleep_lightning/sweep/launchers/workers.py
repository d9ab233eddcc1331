"""Runs that workers take from a queue, on whatever machines see the sweep's folder."""

import time
from pathlib import Path

from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers.launcher import Launcher
from sleep_lightning.sweep.launchers.queue import Queue

LEASE_SECONDS = 120.0
"""A worker that has not told for so long that it lives is lost. Shared file systems show times a minute late."""


class WorkersLauncher(Launcher):
    """A queue of runs. Those of a lost worker wait for another, which goes on from their last checkpoint.

    Args:
        folder: of the sweep.
        threads: CPU threads of each run.
        lease_seconds: as ``LEASE_SECONDS``. Measured by our clock alone: those of machines differ.
    """

    def __init__(self, folder: Path, threads: int, lease_seconds: float = LEASE_SECONDS) -> None:
        super().__init__()
        self._queue, self._threads, self._lease = Queue(folder), threads, lease_seconds
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}
        self._queue.reopen()

    def submit(self, run: FitProcess) -> None:
        run.write_experiment()
        self._seen.pop(_name(run), None)
        self._queue.put(_name(run), self._threads)

    def poll(self, run: FitProcess) -> str | None:
        name = _name(run)
        if (how := self._queue.ended(name)) is not None:
            return how
        if self._queue.waits(name):
            done = run.summary is not None and run.directory.holder() is None
            return "done" if done and self._queue.take_back(name) else None
        taken = self._queue.taken(name)
        if self._is_fresh(name, taken):
            return None
        if taken is None:
            self._queue.put(name, self._threads)
        elif self._queue.asked_to_stop(name) is not None:
            self._queue.finish(taken, "asked to stop, its worker was lost")
        elif self._queue.put_back(taken):
            self.events.append(f"{name}: its worker {taken.stem.partition('@')[2]} is lost; it waits for another")
        return None

    def signal(self, run: FitProcess) -> None:
        self._queue.stop(_name(run), "save")
        self._queue.take_back(_name(run))

    def cancel(self, run: FitProcess) -> None:
        self._queue.stop(_name(run), "kill")
        self._queue.take_back(_name(run))

    def close(self) -> None:
        self._queue.close()

    def _is_fresh(self, name: str, taken: Path | None) -> bool:
        """Whether the run's file has changed within the lease; one on its way between two folders is not seen."""
        try:
            now = ("", 0) if taken is None else (taken.name, taken.stat().st_mtime_ns)
        except FileNotFoundError:
            now = ("", 0)
        known = self._seen.get(name)
        if known is None or known[0] != now:
            self._seen[name] = now, time.monotonic()
            return True
        return time.monotonic() - known[1] < self._lease


def _name(run: FitProcess) -> str:
    return run.directory.path.name
