"""The finished runs of a sweep, those of trials that have not ended included."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.history import HistoryFile
from sleep_lightning.runs.process import finished_summary
from sleep_lightning.sweep.report.content import Report
from sleep_lightning.sweep.trial import run_path, seeds_by_trial

REMEDY = "remove it and resume the sweep, which writes it again"


@dataclass(frozen=True)
class FinishedRun:
    """A run with a summary."""

    values: dict[str, Any]
    n_passes: int
    seed: int
    directory: RunDirectory
    summary: dict[str, Any]

    @property
    def history(self) -> list[dict[str, float]]:
        """Its validations. Raises DamagedFile."""
        return HistoryFile(self.directory.history, REMEDY).read()


def finished_runs(folder: Path, report: Report) -> Iterator[FinishedRun]:
    """Trial by trial, by seed. Raises DamagedFile: a summary."""
    seeds = seeds_by_trial(folder)
    for trial in report.trials:
        for seed in seeds.get(trial.number, ()) if trial.values else ():
            directory = RunDirectory(run_path(folder, trial.number, seed))
            if (summary := finished_summary(directory, REMEDY)) is not None:
                yield FinishedRun(trial.values, report.n_passes(trial), seed, directory, summary)
