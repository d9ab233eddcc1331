"""The files of a report: pictures, tables and pages that open without a network, in the sweep's folder."""

import csv
import io
import math
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sleep_lightning.runs.files import write_json, write_text
from sleep_lightning.sweep.folder import BASE, SWEEPS
from sleep_lightning.sweep.measures import COSTS, is_share
from sleep_lightning.sweep.report.baselines import baseline_facts
from sleep_lightning.sweep.report.content import Report, in_words
from sleep_lightning.sweep.report.drawn import MOST_CURVES, MOST_DOTS, thinned
from sleep_lightning.sweep.report.law import Laws
from sleep_lightning.sweep.report.page import SHOWN, report_page
from sleep_lightning.sweep.report.rows import Row
from sleep_lightning.sweep.storage import SPEC
from sleep_lightning.tracking.figures.frontier_plot import Dot, FrontierPlot
from sleep_lightning.tracking.figures.runs import draw_frontier
from sleep_lightning.tracking.figures.sweeps import frontier_figure
from sleep_lightning.tracking.figures.web_page import write_page

TRIALS = "trials.csv"
"""All trials as a table, in the sweep's folder."""


def write_report(report: Report, folder: Path, laws: Laws | None = None) -> list[Path]:
    """Write ``frontier.json``, ``trials.csv`` and ``report.html``, and once a trial is finished ``frontier.png`` and
    ``frontier.html``, over budgets of FLOPs ``law.json`` and ``law.png``; returns them.

    Args:
        report: what is written.
        folder: of the sweep.
        laws: over its budgets; None: those of the report.

    Raises:
        OSError: the folder cannot be written.
    """
    table, figures, page = folder / TRIALS, folder / "frontier.json", folder / "report.html"
    write_json(figures, as_json(report))
    write_text(table, as_csv(report))
    files = [figures, table]
    plot = frontier_plot(report) if report.finished else None
    if plot is not None:
        picture, interactive = folder / "frontier.png", folder / "frontier.html"
        draw_frontier(plot, picture)
        write_page(frontier_figure(plot), interactive, plot.title)
        files += [picture, interactive]
    laws = laws or Laws.over_budgets(folder, report)
    if laws is not None:
        files += laws.write(folder, report.name)
    reach = report.name if folder.resolve() == (SWEEPS / report.name).resolve() else str(folder)
    drawn = [
        as_dot(report, t) for t in thinned([t for t in report.trials if t.curve], MOST_CURVES, _shown_best(report))
    ]
    beside = [file.name for file in (*files, folder / SPEC, folder / BASE) if file.exists()]
    write_text(page, report_page(report, plot, drawn, reach, () if laws is None else laws.slices, beside))
    return [*files, page]


def frontier_plot(report: Report) -> FrontierPlot:
    """The plot of the frontier; for a single objective, trials without a line. Of very many, some (``thinned``)."""
    dots = {t.number: as_dot(report, t) for t in thinned(report.finished, MOST_DOTS, _shown_best(report))}
    return FrontierPlot(
        title=report.name,
        cost_label=in_words(report.cost),
        value_label=in_words(report.value),
        dots=tuple(dots.values()),
        depths=report.depths,
        stopped=_stopped(report),
        edge=tuple(dots[t.number] for t in report.best) if len(report.objectives) > 1 else (),
        band=tuple(report.frontier_intervals),
        levels={f"{label} {text}": report.baselines[label][1] for label, text in baseline_facts(report)},
        value_is_share=is_share(report.value),
        log_cost=report.cost in COSTS and all(dot.cost > 0 for dot in dots.values()),
        cost_unit=COSTS.get(report.cost, ""),
    )


def _stopped(report: Report) -> tuple[Dot, ...]:
    """Pruned trials, where curves and frontier have the same axes."""
    if (report.cost, report.value) != ("train_flops", "exact_match"):
        return ()
    stopped = [t for t in report.trials if t.state == "pruned" and t.curve]
    return tuple(as_dot(report, t) for t in thinned(stopped, MOST_DOTS))


def _shown_best(report: Report) -> list[Row]:
    """The frontier; of a ranking, its top."""
    return report.best if len(report.objectives) > 1 else report.best[:SHOWN]


def as_dot(report: Report, trial: Row) -> Dot:
    """A trial as it is drawn; one without a result at the last validation of its curve."""
    if trial.result:
        cost, value = trial.result[report.cost], trial.result[report.value]
        seeds = trial.by_seed.get(report.value) or [value]
    else:
        cost, value = trial.curve[-1]
        seeds = [value]
    n = report.n_passes(trial)
    return Dot(trial.number, n, cost, value, min(value, *seeds), max(value, *seeds), len(seeds), trial.written())


def as_json(report: Report) -> dict[str, Any]:
    """The frontier (for a single objective, the ranking) and the totals of the sweep."""
    return {
        "name": report.name,
        "objectives": report.objectives,
        "trials": dict(report.states),
        "flops_spent": report.flops_spent,
        "flops_saved_by_pruning": report.flops_saved,
        "hypervolume": report.gain(report.finished),
        "baselines": {label: list(ends) for label, ends in report.baselines.items()},
        "importances": report.importances,
        "frontier": [
            {"trial": t.number, "values": t.values}
            | {name: x if math.isfinite(x) else None for name, x in t.result.items()}
            | {"exact_match_by_seed": t.by_seed["exact_match"]}
            | {"frontier_share": report.frontier_share(t)}
            | {"interval": interval}
            for t, interval in zip_longest(report.best, report.frontier_intervals)
        ],
    }


def as_csv(report: Report) -> str:
    """A line for each trial: number, state, point, results, FLOPs, reason."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(_table(report))
    return text.getvalue()


def _table(report: Report) -> Iterator[list[Any]]:
    keys = list(report.definition["space"])
    measures = sorted({name for t in report.trials for name in t.result})
    yield ["trial", "state", *keys, *measures, "exact_match_by_seed", "flops_spent", "reason"]
    for t in report.trials:
        point = ["null" if (value := t.values.get(key, "")) is None else value for key in keys]
        seeds = ";".join(map(str, t.by_seed.get("exact_match", [])))
        yield [t.number, t.state, *point, *(t.result.get(m, "") for m in measures), seeds, t.flops_spent, t.reason]
