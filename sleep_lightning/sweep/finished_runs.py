"""The finished runs of a sweep, those of trials that have not ended included."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.folder import load_saved
from sleep_lightning.sweep.report.content import Report
from sleep_lightning.sweep.trial import build_trial


@dataclass(frozen=True)
class FinishedRun:
    """A run with a summary.

    Attributes:
        values: its point.
        seed: of its training.
        process: it.
        summary: its ``summary.json``.
    """

    values: dict[str, Any]
    seed: int
    process: FitProcess
    summary: dict[str, Any]


def finished_runs(folder: Path, report: Report) -> Iterator[FinishedRun]:
    """Trial by trial, in order of seeds."""
    sweep = load_saved(folder)
    for trial in report.trials:
        if trial.state == "infeasible" or not trial.values:
            continue
        runs = build_trial(sweep, trial.number, trial.values, folder).runs
        for seed, run in zip(sweep.spec.seeds, runs, strict=True):
            if (summary := run.summary) is not None:
                yield FinishedRun(trial.values, seed, run, summary)
