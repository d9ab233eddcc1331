"""A worker: takes runs from a sweep's queue, one at a time, and trains them."""

import json
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from sleep_lightning.config import load_experiment
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import URI_VARIABLE, FitProcess, Watched
from sleep_lightning.sweep.launchers.queue import Queue, Stop, worker_name
from sleep_lightning.sweep.trial import runs_path

RENEW_SECONDS = 5.0
"""Between two signs of life."""
LOOK_SECONDS = 0.5


@dataclass
class _Work:
    """A run that this worker trains.

    Attributes:
        taken: its file in the queue.
        run: what is trained.
        process: that trains it.
        renewed: when the worker last told that it lives.
        told: what the process was told last.
    """

    taken: Path
    run: FitProcess
    process: Watched
    renewed: float
    told: Stop | None = None

    @property
    def name(self) -> str:
        return self.run.directory.path.name


class Worker:
    """Trains what waits in a sweep's queue, until the sweep is at its end.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._queue, self._name = folder, Queue(folder), worker_name()
        self._work: _Work | None = None

    def work(self, idle_seconds: float, look_seconds: float = LOOK_SECONDS) -> Generator[str, None, None]:
        """Yields a line at each thing that happens. Ends with the sweep, or after so many seconds with nothing to do.

        Closing the iterator has the run saved and put back for another worker.
        """
        idle_since = time.monotonic()
        try:
            while True:
                if self._work is not None:
                    yield from self._look()
                    idle_since = time.monotonic()
                elif self._queue.closed:
                    yield "the sweep is done"
                    return
                elif self._take():
                    yield f"{self._work.name if self._work else ''}: begun"
                elif time.monotonic() - idle_since > idle_seconds:
                    yield f"nothing to do for {idle_seconds / 60:.0f} minutes"
                    return
                time.sleep(look_seconds)
        finally:
            self._leave()

    def _take(self) -> bool:
        """Begin a run, or go on with it. One that some process holds (its worker was lost, it was not) is not free."""
        taken = self._queue.claim(self._name, lambda name: self._directory(name).holder() is None)
        if taken is None:
            return False
        directory = self._directory(taken.name.partition("@")[0])
        try:
            experiment = load_experiment(directory.path.with_suffix(".yaml"))
        except ValueError as error:  # another version's
            self._queue.finish(taken, str(error))
            return False
        tracking = replace(experiment.tracking, uri=os.environ.get(URI_VARIABLE, experiment.tracking.uri))
        training = replace(experiment.training, run_dir=str(directory.path))  # as this machine sees it
        run = FitProcess(replace(experiment, tracking=tracking, training=training), directory)
        threads = int(json.loads(taken.read_text())["threads"])
        self._work = _Work(taken, run, run.start(threads), time.monotonic())
        return True

    def _look(self) -> Generator[str, None, None]:
        work = self._work
        assert work is not None
        if not work.process.alive():
            how = "done" if work.run.summary is not None else work.run.why_failed(work.process.exit_code())
            if self._queue.renew(work.taken):
                self._queue.finish(work.taken, how)
            self._work = None
            yield f"{work.name}: {how}"
            return
        if time.monotonic() - work.renewed >= RENEW_SECONDS:
            work.renewed = time.monotonic()
            if not self._queue.renew(work.taken) and work.told is None:
                work.told = "save"
                work.process.end()
                yield f"{work.name}: given to another worker, as this one was not heard of; ended here"
        asked = self._queue.asked_to_stop(work.name)
        if asked is not None and asked != work.told:
            work.told = asked
            if asked == "save":
                work.process.end()
            else:
                work.process.kill()

    def _leave(self) -> None:
        if (work := self._work) is None:
            return
        work.process.end()
        work.process.wait()
        if work.run.summary is not None:
            self._queue.finish(work.taken, "done")
        else:
            self._queue.put_back(work.taken)

    def _directory(self, name: str) -> RunDirectory:
        return RunDirectory(runs_path(self._folder) / name)
