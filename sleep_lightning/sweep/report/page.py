"""A sweep's report as one HTML page that needs no network."""

import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape

from sleep_lightning.formatting import in_flop
from sleep_lightning.sweep.bootstrap import interval_name
from sleep_lightning.sweep.point import TRAIN_FLOPS
from sleep_lightning.sweep.report.all_trials import all_trials
from sleep_lightning.sweep.report.baselines import baseline_facts, value_text, warning
from sleep_lightning.sweep.report.content import Report, in_words
from sleep_lightning.sweep.report.drawn import steps
from sleep_lightning.sweep.report.html import head, html_table, link, paragraph, table
from sleep_lightning.sweep.report.importances import ENOUGH
from sleep_lightning.sweep.report.law import SliceLaw
from sleep_lightning.sweep.report.origin import values_of
from sleep_lightning.sweep.report.rows import Row
from sleep_lightning.tracking.figures.frontier_plot import Dot, FrontierPlot
from sleep_lightning.tracking.figures.law_plot import law_figure
from sleep_lightning.tracking.figures.sweeps import curves_figure, frontier_figure, importances_figure, progress_figure
from sleep_lightning.tracking.figures.web_page import as_div, web_page

SHOWN, SHOWN_FAILED = 20, 50
SURE = (
    "Means over seeds, bars from the worst seed to the best. By resamples of the seeds, from their standard errors: "
    "the band, a 95% interval of the best mean at that cost, and how often a trial is on the frontier."
)


def report_page(
    report: Report,
    plot: FrontierPlot | None,
    drawn: Sequence[Dot],
    reach: str,
    laws: Sequence[SliceLaw] = (),
    beside: Sequence[str] = (),
) -> str:
    """The page: facts, frontier, its trials and how to train them, loss over N by budget, gain over FLOPs spent,
    learning curves, importances, the space, failures, all trials. A section without content says why.

    Args:
        report: what is reported.
        plot: the frontier; None while no trial is finished.
        drawn: the trials that have a curve.
        reach: name or path by which the command line finds the sweep.
        laws: by slice, of a sweep over budgets, or as they were asked for.
        beside: names of the files beside the page.
    """
    sections = (
        *(_facts(report, beside), _frontier(report, plot, reach), _laws(report, laws), _progress(report)),
        *(_curves(report, drawn), _importances(report), _space(report), _failures(report), _trials(report)),
    )
    parts = [part for section in sections for part in section]
    return web_page(report.name, parts, figures=any("Plotly.newPlot(" in part for part in parts))


def _facts(report: Report, beside: Sequence[str]) -> Iterator[str]:
    yield f"<h1>{escape(report.name)}</h1>"
    rows = [
        ("trials", ", ".join(f"{n} {state}" for state, n in report.states.items()) or "none"),
        ("objectives", ", ".join(f"{way} {in_words(name)}" for name, way in report.objectives.items())),
        ("seeds", ", ".join(map(str, report.definition["seeds"]))),
        ("training FLOPs spent", in_flop(report.flops_spent)),
    ]
    if report.states["pruned"]:
        whole = report.flops_spent + report.flops_saved
        share = f"{report.flops_saved / whole:.0%} of {in_flop(whole)}"
        rows.append(("saved by pruning", f"{in_flop(report.flops_saved)} ({share})"))
    rows += [(f"{label} scores", text) for label, text in baseline_facts(report)]
    if (text := warning(report)) is not None:
        rows.append(("warning", text))
    rows += report.origin.facts()
    cells = [[escape(name), escape(text)] for name, text in rows]
    cells.append(["MLflow", _mlflow(report)])
    yield html_table((), cells)
    if beside:
        yield '<p class="note">Beside this page: ' + ", ".join(link(name, name) for name in beside) + ".</p>"


def _mlflow(report: Report) -> str:
    if (url := report.origin.charts_url) is None:
        return "not recorded there, or not yet"
    server = report.origin.charts.get("server")
    return link("charts of all runs", url) + (f" (while this runs: <code>{escape(server)}</code>)" if server else "")


def _frontier(report: Report, plot: FrontierPlot | None, reach: str) -> Iterator[str]:
    several = len(report.objectives) > 1
    yield head("Frontier" if several else "Ranking", SURE if several else "Means over seeds, bars from worst to best.")
    if plot is None:
        yield paragraph("No trial is finished yet.")
        return
    yield as_div(frontier_figure(plot))
    if (drawn := len(plot.dots)) < len(report.finished):
        note = f"{drawn} of {len(report.finished)} finished trials are drawn, among them all of the frontier."
        yield paragraph(note, "note")
    what = "no other trial beats in cost and value" if several else "ranks highest"
    yield paragraph(f"What {what}{_against(report)}, and the command that writes each as an experiment:")
    cost = partial(report.text, report.cost)
    rows = [
        (str(t.number), cost(t.result[report.cost]), value_text(report, t), *report.sureness(t), t.written())
        for t in report.best[:SHOWN]
    ]
    yield table(("trial", plot.cost_label, plot.value_label, "seeds", "on frontier", "point"), rows)
    if len(report.best) > SHOWN and several:
        yield paragraph(f"{len(report.best) - SHOWN} more are in frontier.json.", "note")
    for t in report.best[:SHOWN] if several and report.cost == "train_flops" else report.best[:1]:
        yield f"<p>{t.number}: <code>{escape(export_command(report, t, reach))}</code></p>"


def _against(report: Report) -> str:
    """The baselines, for beside results."""
    scores = ", ".join(f"{label} {text}" for label, text in baseline_facts(report))
    return f" ({scores})" if scores else ""


def _laws(report: Report, laws: Sequence[SliceLaw]) -> Iterator[str]:
    if not laws and TRAIN_FLOPS not in report.definition["space"]:
        return
    yield head(
        "Loss over N at equal training FLOPs",
        "Means over the seeds that have finished everywhere, bars from the best of them to the worst.",
    )
    if not laws:
        yield paragraph("No curve yet: it takes a seed that has finished everywhere, and three N at a budget.")
    for law in laws:
        yield f"<h3>{escape(law.name)}</h3>"
        if law.curves:
            yield as_div(law_figure(law.panel()))
            yield table(
                ("training FLOPs", f"N* [{interval_name(law.seeds)} over {law.seeds} seeds]", "at the edge"),
                [[in_flop(c.budget), str(c.best), "yes" if c.at_edge else "no"] for c in law.curves],
            )
        yield paragraph(f"{law.name}: {law.verdict()}.")


def export_command(report: Report, trial: Row, reach: str) -> str:
    """The command that writes a trial of the frontier as an experiment; the best one's needs no bound."""
    bound = [] if trial is report.best_within(None) else ["--max-flops", f"{trial.result['train_flops']:.0f}"]
    target = f"{report.name}_{trial.number}.yaml"
    return "python -m sleep_lightning " + shlex.join(["sweep", "best", reach, *bound, "--export", target])


def _progress(report: Report) -> Iterator[str]:
    several = len(report.objectives) > 1
    note = "Share of the area below the largest value and the largest cost that the frontier dominates."
    yield head("Progress over training FLOPs", note if several else "The best value after each trial.")
    if points := report.progress:
        yield as_div(progress_figure(steps(points), "hypervolume" if several else in_words(report.value)))
    else:
        yield paragraph("No trial that cost training FLOPs has ended yet.")


def _curves(report: Report, drawn: Sequence[Dot]) -> Iterator[str]:
    note = "Exact match at each validation, mean over seeds; of pruned trials until they were stopped."
    if len(drawn) < (n := sum(1 for trial in report.trials if trial.curve)):
        note += f" Of {n}, {len(drawn)} are drawn."
    yield head("Learning curves", note)
    if not drawn:
        yield paragraph("No trial that was validated has ended yet.")
        return
    levels = {f"{label} {ends[1]:.3f}": ends[1] for label, ends in report.baselines.items()}
    curves = [(dot, report.trials[dot.trial].curve) for dot in drawn]
    yield as_div(curves_figure(curves, report.depths, levels if report.value == "exact_match" else {}))


def _importances(report: Report) -> Iterator[str]:
    note = "How much the best quarter of the finished trials differs from the others in each key (PED-ANOVA)."
    yield head("Which keys matter", note)
    if report.importances:
        yield as_div(importances_figure({in_words(name): shares for name, shares in report.importances.items()}))
    if lacking := [in_words(name) for name in report.objectives if name not in report.importances]:
        why, found = "the finished trials hardly differ in it", len(report.finished)
        if found < ENOUGH:
            why = f"it takes {ENOUGH} finished trials; there are {found}"
        yield paragraph(f"Not known for {' and '.join(lacking)}: {why}.")


def _space(report: Report) -> Iterator[str]:
    yield head("What varies", "The other keys are those of the base experiment, base.yaml.")
    rows = [[key, *values_of(parameter)] for key, parameter in report.definition["space"].items()]
    yield table(("key", "only if", "values"), rows)


def _failures(report: Report) -> Iterator[str]:
    yield head("Failed and infeasible", "Failed trials are replaced; infeasible ones violate a bound and were not run.")
    failed = [t for t in report.trials if t.state in ("failed", "infeasible")]
    if failed:
        rows = [[str(t.number), t.state, t.written(), t.reason] for t in failed[:SHOWN_FAILED]]
        yield table(("trial", "state", "point", "reason"), rows)
    else:
        yield paragraph("No trial has failed, and none was infeasible.")
    if len(failed) > SHOWN_FAILED:
        yield paragraph(f"{len(failed) - SHOWN_FAILED} more are in the table of all trials.")


def _trials(report: Report) -> Iterator[str]:
    note = "A click on a title sorts. Seeds lead to a run in MLflow, or to its folder beside this page."
    yield head("All trials", note)
    yield all_trials(report) if report.trials else paragraph("There is none yet.")
