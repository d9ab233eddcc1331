"""One trial as a report shows it, from the study and the summaries of its runs."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.frontier import Point
from sleep_lightning.runs.damage import read_json
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import SUMMARY
from sleep_lightning.sweep.measures import is_share, measured
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.study import learning_curve
from sleep_lightning.sweep.trial import run_path


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: in its study.
        state: complete, pruned, failed, infeasible (never run), running or waiting.
        values: its point.
        train_flops: of all its runs, known before the first step; None if it was never run.
        result: means over seeds by measure; empty without a result.
        by_seed: each seed's result, by measure.
        curve: training FLOPs of one run and exact match at its validations, mean over seeds.
        flops_spent: training FLOPs of all its runs.
        reason: why it was stopped or failed.
        started: when; None while it waits.
        ended: when.
        further_flops: training FLOPs of its runs since it had its first result, those that diverged too.
        answers: of which exact match is a share; None unless one seed has recorded it.
        diverged: further seeds without a result because training diverged; a share counts as 0 for them.
        runs: MLflow run by seed, of all that have a directory; None if it is not known.
    """

    number: int
    state: str
    values: dict[str, Any]
    train_flops: float | None
    result: dict[str, float]
    by_seed: dict[str, list[float]]
    curve: tuple[Point, ...]
    flops_spent: float
    reason: str
    started: datetime | None
    ended: datetime | None
    further_flops: float = 0.0
    answers: float | None = None
    diverged: int = 0
    runs: Mapping[int, str | None] = field(default_factory=dict)

    def written(self) -> str:
        """Its point, for display."""
        return written(self.values)


def read_summaries(folder: Path, number: int, seeds: Iterable[int]) -> dict[int, dict[str, Any]]:
    """``summary.json`` of a trial's finished runs, by seed; MLflow may have the run since. Raises DamagedFile."""
    found = {}
    for seed in seeds:
        with suppress(FileNotFoundError):
            directory = RunDirectory(run_path(folder, number, seed))
            summary = read_json(directory.summary, SUMMARY, "remove it: the report does without")
            if summary.get("mlflow_run_id") is None:
                summary |= {"mlflow_run_id": directory.mlflow_run_id}
            found[seed] = summary
    return {seed: summary for seed, summary in found.items() if summary["status"] == "FINISHED"}


def row_of(
    trial: FrozenTrial, seeds: Iterable[int], finished: Mapping[int, dict[str, Any]], diverged: Sequence[float] = ()
) -> Row:
    """A trial as it is shown.

    Args:
        trial: of the study.
        seeds: that have a directory.
        finished: summaries of its finished runs.
        diverged: of each of ``Row.diverged``, the training FLOPs that it took.
    """
    summaries = list(finished.values())
    facts = trial.user_attrs
    state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    result = facts.get("result", {})
    by_seed = {name: [x for run in summaries if (x := measured(run, name)) is not None] for name in result}
    recorded = facts.get("exact_match_by_seed", [])  # the run directories may be gone
    further = max(len(summaries) - len(recorded), 0) if recorded else 0
    if further or (diverged and len(summaries) == len(recorded)):  # seeds since the trial was told
        by_seed = {
            name: [*values, *([0.0] * len(diverged) if is_share(name) else [])] for name, values in by_seed.items()
        }
        result = {name: mean(values) for name, values in by_seed.items()}
    elif recorded:
        by_seed["exact_match"] = recorded
    further_flops = further * result.get("train_flops", 0.0) + sum(diverged)
    return Row(
        number=trial.number,
        state="infeasible" if "infeasible" in facts else state,
        values=facts.get("values", dict(trial.params)),
        train_flops=facts.get("train_flops"),
        result=result,
        by_seed=by_seed,
        curve=tuple(learning_curve(trial)),
        flops_spent=facts.get("flops_spent", 0.0) + further_flops,
        further_flops=further_flops,
        diverged=len(diverged),
        answers=Accuracy.of_summary(summaries[0]).answers if len(summaries) == 1 else None,
        reason=next((facts[key] for key in ("infeasible", "pruned", "failed") if key in facts), ""),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        runs={seed: finished.get(seed, {}).get("mlflow_run_id") for seed in seeds},
    )
