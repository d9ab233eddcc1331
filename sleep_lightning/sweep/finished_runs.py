"""The runs of a sweep that have finished, those of trials without a result included; and those that never will."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.history import HistoryFile
from sleep_lightning.runs.process import finished_summary
from sleep_lightning.sweep.point import point_key
from sleep_lightning.sweep.report.content import Report
from sleep_lightning.sweep.study import DIVERGED_SEED, has_diverged
from sleep_lightning.sweep.trial import is_marked_diverged, run_path, seeds_by_trial

End = Literal["diverged", "failed", "stopped"]
REMEDY = "remove it and resume the sweep, which writes it again"


class _Run:
    directory: RunDirectory

    @property
    def history(self) -> list[dict[str, float]]:
        """Its validations. Raises DamagedFile."""
        return HistoryFile(self.directory.history, REMEDY).read()


@dataclass(frozen=True)
class FinishedRun(_Run):
    """A run with a summary."""

    values: dict[str, Any]
    n_passes: int
    seed: int
    directory: RunDirectory
    summary: dict[str, Any]


@dataclass(frozen=True)
class LostRun(_Run):
    """A run without a summary, of a trial that has ended.

    Attributes:
        end: ``stopped`` by the pruner, or because another seed of its trial failed.
    """

    values: dict[str, Any]
    seed: int
    directory: RunDirectory
    end: End


def finished_runs(folder: Path, report: Report) -> Iterator[FinishedRun]:
    """One of each point and seed, trial by trial, by seed. Raises DamagedFile: a summary.

    A point that failed may have been tried again with the same seeds: the trial with a result counts, else the last.
    """
    seeds = seeds_by_trial(folder)
    found: dict[tuple[str, int], FinishedRun] = {}
    complete: set[tuple[str, int]] = set()
    for trial in report.trials:
        for seed in seeds.get(trial.number, ()) if trial.values else ():
            key, directory = (point_key(trial.values), seed), RunDirectory(run_path(folder, trial.number, seed))
            if (key not in complete or trial.result) and (summary := finished_summary(directory, REMEDY)) is not None:
                found[key] = FinishedRun(trial.values, report.n_passes(trial), seed, directory, summary)
                complete |= {key} if trial.result else set()
    yield from found.values()


def lost_runs(folder: Path, report: Report, finished: Iterable[FinishedRun]) -> list[LostRun]:
    """Those whose point and seed did not finish in another trial either. Raises DamagedFile: a summary."""
    seeds = seeds_by_trial(folder)
    done = {(point_key(run.values), run.seed) for run in finished}
    found: dict[tuple[str, int], LostRun] = {}
    facts = {trial.number: trial for trial in report.study.get_trials(deepcopy=False)}
    for trial in report.trials:
        if trial.state not in ("failed", "pruned", "complete"):
            continue
        runs = {seed: RunDirectory(run_path(folder, trial.number, seed)) for seed in seeds.get(trial.number, ())}
        lost = {seed: run for seed, run in runs.items() if finished_summary(run, REMEDY) is None}
        if trial.state == "complete":  # other further seeds go on
            lost = {seed: run for seed, run in lost.items() if is_marked_diverged(run)}
        diverged = None
        if lost and has_diverged(facts[trial.number]):  # earlier versions did not say which
            diverged = facts[trial.number].user_attrs.get(DIVERGED_SEED, min(lost))
        for seed, run in lost.items():
            if (key := (point_key(trial.values), seed)) in done:
                continue
            end: End = "failed" if trial.state == "failed" and diverged is None else "stopped"
            if seed == diverged or is_marked_diverged(run):
                end = "diverged"
            found[key] = LostRun(trial.values, seed, run, end)
    return list(found.values())
