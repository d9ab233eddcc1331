"""A sweep's report as one HTML page that needs no network."""

import shlex
from collections.abc import Iterable, Sequence
from html import escape

from sleep_lightning.formatting import in_flop
from sleep_lightning.sweep.report.baselines import baseline_facts, value_text, warning
from sleep_lightning.sweep.report.content import Report, Row
from sleep_lightning.sweep.report.drawn import steps
from sleep_lightning.sweep.report.law import SliceLaw
from sleep_lightning.tracking.figures.frontier_plot import Dot, FrontierPlot
from sleep_lightning.tracking.figures.law_plot import law_figure
from sleep_lightning.tracking.figures.sweeps import (
    as_div,
    curves_figure,
    frontier_figure,
    importances_figure,
    plotly_js,
    progress_figure,
)

SHOWN, SHOWN_FAILED = 20, 50
SURE = "Means over seeds. On frontier: in this share of the resamples of the seeds, by their standard errors."
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2.2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 0.92em; } th, td { text-align: left; padding: 0.25em 1em 0.25em 0; }
th { border-bottom: 1px solid #888; font-weight: 600; } tr + tr td { border-top: 1px solid #eee; }
code { font-size: 0.92em; background: #f5f5f5; padding: 0.1em 0.3em; } .note { color: #555; }
"""


def report_page(
    report: Report, plot: FrontierPlot | None, drawn: Sequence[Dot], reach: str, laws: Sequence[SliceLaw] = ()
) -> str:
    """The page: facts, frontier, its trials and how to train them, loss over N by budget, gain over FLOPs spent,
    learning curves, importances, failures.

    Args:
        report: what is reported.
        plot: the frontier; None while no trial is finished.
        drawn: the trials that have a curve.
        reach: name or path by which the command line finds the sweep.
        laws: by slice, of a sweep over budgets.
    """
    parts = [f"<h1>{escape(report.name)}</h1>", _table((), _facts(report))]
    if plot is None:
        parts.append("<p>No trial is finished yet.</p>")
    else:
        parts += _frontier(report, plot, reach)
    parts += _laws(laws)
    if points := report.progress:
        several = len(report.objectives) > 1
        label = "hypervolume" if several else f"best {report.value.replace('_', ' ')}"
        note = "Share of the area below the largest value and the largest cost that the frontier dominates."
        parts += [
            _head("Progress over training FLOPs", note if several else ""),
            as_div(progress_figure(steps(points), label)),
        ]
    if curves := [(dot, report.trials[dot.trial].curve) for dot in drawn]:
        note = "Exact match at each validation, mean over seeds; of pruned trials until they were stopped."
        if len(curves) < (n := sum(1 for trial in report.trials if trial.curve)):
            note += f" Of {n}, {len(curves)} are drawn."
        parts += [_head("Learning curves", note), as_div(curves_figure(curves, report.depths))]
    if report.importances:
        note = "How much the best quarter of the finished trials differs from the others in each key (PED-ANOVA)."
        parts += [_head("Which keys matter", note), as_div(importances_figure(report.importances))]
    parts += _failures(report)
    head = f'<meta charset="utf-8"><title>{escape(report.name)}</title><style>{STYLE}</style>'
    script = f"<script>{plotly_js()}</script>" if plot is not None or curves else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}{script}</head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _facts(report: Report) -> Iterable[Sequence[str]]:
    yield "trials", ", ".join(f"{n} {state}" for state, n in report.states.items()) or "none"
    yield "objectives", ", ".join(f"{way} {name}" for name, way in report.objectives.items())
    yield "training FLOPs spent", in_flop(report.flops_spent)
    if report.states["pruned"]:
        whole = report.flops_spent + report.flops_saved
        yield (
            "saved by pruning",
            f"{in_flop(report.flops_saved)} ({report.flops_saved / whole:.0%} of {in_flop(whole)})",
        )
    yield from ((f"{label} scores", text) for label, text in baseline_facts(report))
    if (text := warning(report)) is not None:
        yield "warning", text


def _frontier(report: Report, plot: FrontierPlot, reach: str) -> Iterable[str]:
    several = len(report.objectives) > 1
    what = "no other trial beats in cost and value" if several else "ranks highest"
    yield _head("Frontier" if several else "Ranking", SURE if several else "Means over seeds.")
    yield as_div(frontier_figure(plot))
    if (drawn := len(plot.dots)) < len(report.finished):
        yield _note(f"{drawn} of {len(report.finished)} finished trials are drawn, among them all of the frontier.")
    yield f"<p>What {what}, and the command that writes each as an experiment:</p>"
    rows = [
        [
            str(t.number),
            report.cost_text(t.result[report.cost]),
            value_text(report, t),
            *report.sureness(t),
            t.written(),
        ]
        for t in report.best[:SHOWN]
    ]
    yield _table(("trial", plot.cost_label, plot.value_label, "seeds", "on frontier", "point"), rows)
    for t in report.best[:SHOWN] if several and report.cost == "train_flops" else report.best[:1]:
        yield f"<p>{t.number}: <code>{escape(export_command(report, t, reach))}</code></p>"


def _laws(laws: Sequence[SliceLaw]) -> Iterable[str]:
    if laws:
        yield _head("Loss over N at equal training FLOPs", "Means over the seeds; bars from the best to the worst.")
    for law in laws:
        if law.curves:
            yield as_div(law_figure(law.panel()))
            yield _table(
                ("training FLOPs", "N* [95%]", "at the edge"),
                [[in_flop(c.budget), str(c.best), "yes" if c.at_edge else "no"] for c in law.curves],
            )
        yield f"<p>{escape(law.name)}: {escape(law.verdict())}.</p>"


def export_command(report: Report, trial: Row, reach: str) -> str:
    """The command that writes a trial of the frontier as an experiment; the best one's needs no bound."""
    bound = [] if trial is report.best_within(None) else ["--max-flops", f"{trial.result['train_flops']:.0f}"]
    target = f"{report.name}_{trial.number}.yaml"
    return "python -m sleep_lightning " + shlex.join(["sweep", "best", reach, *bound, "--export", target])


def _failures(report: Report) -> Iterable[str]:
    failed = [t for t in report.trials if t.state in ("failed", "infeasible")]
    if failed:
        yield _head(
            "Failed and infeasible", "Failed trials are replaced; infeasible ones violate a bound and were not run."
        )
        yield _table(
            ("trial", "state", "reason", "point"),
            [[str(t.number), t.state, t.reason, t.written()] for t in failed[:SHOWN_FAILED]],
        )
    if len(failed) > SHOWN_FAILED:
        yield f"<p>{len(failed) - SHOWN_FAILED} more are in trials.csv.</p>"


def _head(title: str, note: str = "") -> str:
    return f"<h2>{escape(title)}</h2>" + (_note(note) if note else "")


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in [titles, *lines] if line) + "</table>"
