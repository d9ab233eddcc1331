"""The runs of a comparison: one process per arm and seed, resumed if it was interrupted."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sleep_lightning.compare.arms import Arm
from sleep_lightning.config import Experiment, Override
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.infrastructure import Ended, Retry
from sleep_lightning.runs.process import FitProcess, Watched
from sleep_lightning.runs.resume import differing


@dataclass(frozen=True, eq=False)
class Run(FitProcess):
    """One arm with one seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name} seed {self.seed}"

    def under(self, parent_run_id: str) -> "Run":
        """The same run, recorded as a child of another MLflow run."""
        tracking = replace(self.experiment.tracking, parent_run_id=parent_run_id)
        return replace(self, experiment=replace(self.experiment, tracking=tracking))


def plan_runs(base: Experiment, arms: list[Arm], seeds: list[int], folder: Path, *more: Override) -> list[Run]:
    """Every arm with every seed, seed by seed, so that an interrupted comparison has complete rows.

    Raises:
        ValueError: an arm cannot be built, or a directory holds a run of another experiment.
    """
    runs = []
    for seed in seeds:
        for arm in arms:
            path = folder / f"{arm.name}-seed{seed}"
            experiment = arm.apply(base, *more, ("training.seed", seed), ("training.run_dir", str(path)))
            run = Run(experiment, RunDirectory(path), arm, seed)
            if run.directory.config.exists():
                _check_same(run)
            runs.append(run)
    return runs


def _check_same(run: Run) -> None:
    for key, (there, wanted) in differing(run.directory.load_config().to_dict(), run.experiment.to_dict()).items():
        if key not in {"training.threads", "training.search_path", "training.run_dir"}:  # a folder may have moved
            raise ValueError(
                f"--output: {run.directory.path} holds a run with {key}={there}, not {wanted}; give another --output, "
                f"or remove it"
            )


def execute(runs: list[Run], jobs: int, threads: int, say: Callable[[str], None] = print) -> Iterator[set[Run]]:
    """Run what is not finished, ``jobs`` at a time; yields the active runs about twice a second.

    A run that the machine has failed (a full disk, no memory) is resumed after a while; until then it counts as active.
    Closing the iterator (or an exception in its consumer) sends SIGTERM to all processes, which then save and exit.

    Args:
        runs: all of them.
        jobs: runs at a time.
        threads: CPU threads of each.
        say: called with a line about each run that is to be resumed.
    """
    waiting = [run for run in runs if run.summary is None]
    alive: dict[Run, Watched] = {}
    again = Again(say)
    try:
        while waiting or alive:
            while len(alive) < jobs and (run := again.first_due(waiting)) is not None:
                waiting.remove(run)
                try:
                    alive[run] = run.orphan() or run.start(threads)
                except (OSError, MemoryError) as error:
                    waiting += again.after(run, Ended.by(error))
            yield {*alive, *again.waits(waiting)}
            time.sleep(0.5)
            for run, process in list(alive.items()):
                if process.alive():
                    continue
                del alive[run]
                if run.summary is None and (other := run.orphan()) is not None:  # of a comparison that has died
                    alive[run] = other
                elif run.summary is None:
                    waiting += again.after(run, run.ended(process.exit_code()))
    finally:
        for process in alive.values():
            process.end()
        for process in alive.values():
            process.wait()


class Again:
    """Which runs are started again, and when."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._retries: dict[Run, Retry] = {}
        self._spent: dict[Run, float] = {}

    def first_due(self, waiting: Sequence[Run]) -> Run | None:
        """The first that may be started now."""
        return next((run for run in waiting if run not in self._retries or self._retries[run].due), None)

    def waits(self, waiting: Sequence[Run]) -> list[Run]:
        """Those that were started before."""
        return [run for run in waiting if run in self._retries]

    def after(self, run: Run, ended: Ended) -> list[Run]:
        """The run if it is to be started again after this end, else nothing."""
        if run not in self._retries or run.flops_spent > self._spent[run]:  # it got further
            self._retries[run] = Retry()
        self._spent[run] = run.flops_spent
        if ended.cause is None or (seconds := self._retries[run].after(ended.cause)) is None:
            return []
        self._say(f"{run.name}: {ended.reason}; started again in {seconds:.3g} s")
        return [run]
