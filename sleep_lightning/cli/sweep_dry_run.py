"""``sweep --dry-run``: which points a sweep will train, what they cost, and how long all of it takes here."""

from statistics import mean
from typing import Any

import optuna
from rich.console import Console

from sleep_lightning.cli.console import plain_console, print_facts, time_line
from sleep_lightning.cli.sweep import SweepJob
from sleep_lightning.formatting import in_flop
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.study import build_sampler
from sleep_lightning.sweep.trial import build_feasible
from sleep_lightning.tables import Column, FittingTable
from sleep_lightning.training.rate import training_rate

SHOWN = 20
COUNTED = 200
"""Points of a grid whose FLOPs are counted; the rest are taken to cost as much."""


def dry_run(job: SweepJob) -> int:
    """Print the points of a grid, or the sampler's first, with their cost and that of the sweep."""
    spec, console = job.sweep.spec, plain_console()
    grid = spec.sampler == "grid"
    points = job.sweep.space.points() if grid else _examples(job.sweep)
    what = f"{len(points)} points" if grid else f"the first points of {spec.sampler}, before it has any result"
    columns = (Column("point", text=True), Column("training"), Column("note", text=True))
    table = FittingTable(f"{spec.name}: {what}", columns)
    planned, refused = list[float](), 0
    for number, values in enumerate(points[:COUNTED]):
        try:
            trial, note = build_feasible(job.sweep, number, values, job.folder), ""
            planned.append(trial.train_flops)
            flops = in_flop(trial.train_flops)
        except ValueError as error:
            flops, note, refused = "-", f"not run: {error}", refused + 1
        if number < SHOWN:
            table.add_row(written(values), flops, note)
    console.print(table)
    if len(points) > SHOWN:
        console.print(f"and {len(points) - SHOWN} more")
    if planned:
        _print_budget(job, len(points) - refused, planned, console, grid=grid)
    return 0


def _print_budget(job: SweepJob, points: int, planned: list[float], console: Console, *, grid: bool) -> None:
    """What the whole sweep takes at most, all its seeds included.

    Args:
        job: the sweep.
        points: how many there are.
        planned: training FLOPs of the points that can be run.
        console: to print on.
        grid: the points are all there are; else they stand for ``budget.trials`` of them.
    """
    spec = job.sweep.spec
    trials = min(points, spec.budget.trials) if grid else spec.budget.trials
    whole = trials * mean(planned[:trials] if grid else planned)
    flops = min(whole, spec.budget.flops or whole)
    runs = trials * len(spec.seeds)
    at_most = "" if grid and spec.pruner == "none" else ", at most"
    limit = "" if spec.budget.hours is None else f"; stopped after {spec.budget.hours:g} h"
    print_facts(
        console,
        {
            "runs": f"{trials} trials of {len(spec.seeds)} seed{'s' * (len(spec.seeds) != 1)}: {runs}{at_most}",
            "FLOPs": f"{in_flop(flops)}{at_most}",
            "time": time_line(flops, training_rate(job.sweep.base, spec.threads), min(spec.workers, runs)) + limit,
        },
    )


def _examples(sweep: Sweep) -> list[dict[str, Any]]:
    """What the sweep's own sampler asks first, each point once."""
    study = optuna.create_study(
        sampler=build_sampler(sweep.spec, sweep.space),
        directions=list(sweep.spec.objectives.values()),  # type: ignore[arg-type]
    )
    points = [sweep.space.suggest(study.ask()) for _ in range(SHOWN)]
    return list({repr(point): point for point in points}.values())
