"""All trials of a sweep as a table that can be sorted."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from sleep_lightning.formatting import in_flop, score
from sleep_lightning.sweep.measures import SCORES
from sleep_lightning.sweep.report.baselines import value_text
from sleep_lightning.sweep.report.content import Report, in_words
from sleep_lightning.sweep.report.html import Cell, link, sortable
from sleep_lightning.sweep.report.rows import Row
from sleep_lightning.sweep.space import in_yaml
from sleep_lightning.sweep.trial import run_path

NOTHING = Cell("")
COMMON = (*SCORES, "train_flops", "wall_s")
"""Measures that have a column in every table."""


def all_trials(report: Report) -> str:
    """A row for each: state, value and cost, point, what else it measured, when it ended, its runs, why it has no
    result."""
    keys = list(report.definition["space"])
    main = (report.value, report.cost)
    others = [name for name in COMMON if name not in main]
    titles = ["trial", "state", *map(in_words, main), *keys, *map(in_words, others)]
    titles += ["training FLOPs spent", "ended", "runs", "reason"]
    rows = [
        [
            Cell(str(trial.number), trial.number),
            Cell(trial.state),
            *(_result(report, trial, name) for name in main),
            *(_value(trial.values[key]) if key in trial.values else NOTHING for key in keys),
            *(_result(report, trial, name) for name in others),
            Cell(in_flop(trial.flops_spent), trial.flops_spent),
            Cell(f"{trial.ended.astimezone():%m-%d %H:%M}", trial.ended.timestamp()) if trial.ended else NOTHING,
            Cell(" ".join(_runs(report, trial))),
            Cell(escape(trial.reason)),
        ]
        for trial in report.trials
    ]
    return sortable("trials", titles, rows)


def _result(report: Report, trial: Row, measure: str) -> Cell:
    """Of a pruned trial, the exact match of its last validation."""
    if measure in trial.result:
        value = trial.result[measure]
        return Cell(value_text(report, trial) if measure == report.value else report.text(measure, value), value)
    if measure == "exact_match" and trial.curve:
        return Cell(f"{score(trial.curve[-1].value)} when stopped", trial.curve[-1].value)
    if measure == "train_flops" and (planned := report.run_flops(trial)) is not None:
        return Cell(f"{in_flop(planned)} planned", planned)
    return NOTHING


def _value(value: Any) -> Cell:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(escape(in_yaml(value)), value if number else None)


def _runs(report: Report, trial: Row) -> Iterator[str]:
    """Links to each run's folder, or its page in MLflow, and to the log of one that failed."""
    for seed, run_id in trial.runs.items():
        folder = run_path(Path(), trial.number, seed)
        yield link(f"seed {seed}", report.origin.run_url(run_id) or f"{folder}/")
        if trial.state == "failed":
            yield link("log", f"{folder}.log")
