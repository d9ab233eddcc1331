"""The runs of a comparison: one process per arm and seed, resumed if it was interrupted."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sleep_lightning.compare.arms import Arm
from sleep_lightning.config import Experiment, Override
from sleep_lightning.runs.directory import RunDirectory
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


def execute(runs: list[Run], jobs: int, threads: int) -> Iterator[set[Run]]:
    """Run what is not finished, ``jobs`` at a time; yields the active runs about twice a second.

    Closing the iterator (or an exception in its consumer) sends SIGTERM to all processes, which then save and exit.
    """
    waiting = [run for run in runs if run.summary is None]
    alive: dict[Run, Watched] = {}
    try:
        while waiting or alive:
            while waiting and len(alive) < jobs:
                run = waiting.pop(0)
                alive[run] = run.orphan() or run.start(threads)
            yield set(alive)
            time.sleep(0.5)
            alive = {run: process for run, process in alive.items() if process.alive()}
    finally:
        for process in alive.values():
            process.end()
        for process in alive.values():
            process.wait()
