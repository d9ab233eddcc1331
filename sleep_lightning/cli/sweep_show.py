"""``sweep list``, ``show``, ``best``, ``report``: inspect sweeps by their folders alone, during and after a run."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

import optuna
from omegaconf import OmegaConf
from rich.console import Console

from sleep_lightning.cli.console import plain_console, print_facts, say
from sleep_lightning.cli.places import file_to_write
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.formatting import in_flop
from sleep_lightning.runs.damage import reading
from sleep_lightning.runs.files import write_text
from sleep_lightning.sweep.folder import SWEEPS, find_sweep, is_supervised, known_sweeps
from sleep_lightning.sweep.point import apply_point
from sleep_lightning.sweep.report.baselines import baseline_facts, mean_text, value_text, warning
from sleep_lightning.sweep.report.content import Report, in_words, read_report
from sleep_lightning.sweep.report.files import TRIALS, write_report
from sleep_lightning.sweep.report.law import Laws
from sleep_lightning.sweep.report.rows import Row
from sleep_lightning.sweep.storage import JOURNAL, REMEDY
from sleep_lightning.tables import Column, FittingTable

SHOWN_BEST, SHOWN_TRIALS, SHOWN_FAILED = 20, 40, 10
ON = "on frontier"
"""Share of the resamples of the seeds in which a point is on the frontier."""
SweepState = Literal["running", "stopped", "finished"]
WIDE = 160
"""Columns of a table that is not shown on a terminal."""


@dataclass(frozen=True)
class Found:
    """A sweep found by name."""

    name: str
    folder: Path
    report: Report


def find(name: str) -> Found:
    """The sweep and its report. Raises ValueError: there is none, or it cannot be read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = find_sweep(name)
    return Found(name, folder, read_report(folder))


def list_sweeps() -> int:
    """A line for every sweep in ``runs/sweeps``. Returns the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console, folders = table_console(), known_sweeps()
    if not folders:
        console.print(f"there is no sweep in {SWEEPS}/ yet; start one with sweep SPEC.yaml", highlight=False)
        return 0
    columns = (
        *(Column("name", label=True), Column("state", label=True), Column("trials", text=True)),
        *(Column("hypervolume", 2), Column("trained", 1), Column("note", text=True)),
    )
    table = FittingTable(f"sweeps in {SWEEPS}/", columns, elsewhere="see sweep show NAME")
    for folder in folders:
        supervised = is_supervised(folder)
        try:
            report = read_report(folder)
        except ValueError as error:
            table.add_row(folder.name, sweep_state(None, supervised), "-", "-", "-", str(error))
            continue
        state = sweep_state(report, supervised)
        area = f"{report.gain(report.finished):.3f}" if len(report.objectives) > 1 and report.finished else "-"
        table.add_row(
            folder.name, state, states(report, state), area, in_flop(report.flops_spent), warning(report) or ""
        )
    console.print(table)
    return 0


def show(found: Found, everything: bool = False) -> int:
    """Trials: point, cost, result, state and reason; of many those that are looked for, unless everything is asked
    for. Returns the exit code."""
    report, console, supervised = found.report, table_console(), is_supervised(found.folder)
    value = in_words(report.value)
    columns = (
        *(Column("trial"), Column("state", label=True), Column("training", 1), Column(value, text=True)),
        *(Column("point", text=True), Column("reason", text=True)),
    )
    shown = report.trials if everything else looked_for(report.trials)
    some = f"{len(shown)} of {len(report.trials)}" if len(shown) < len(report.trials) else "all"
    table = FittingTable(f"{report.name}: {some} trials", columns, elsewhere=f"see {found.folder / TRIALS}")
    for trial in shown:
        cost = report.run_flops(trial)
        value = value_text(report, trial) if trial.result else "-"
        state = _state(trial.state, supervised)
        table.add_row(
            str(trial.number),
            state,
            "-" if cost is None else in_flop(cost),
            value,
            trial.written(),
            trial.reason,
        )
    console.print(table)
    facts = report_facts(report, found.folder, sweep_state(report, supervised))
    if left := len(report.trials) - len(shown):
        command = f"python -m sleep_lightning sweep show {shlex.quote(found.name)} --all"
        facts["not shown"] = f"{left} trials; here are those running, the last failures and the newest; all: {command}"
    print_facts(console, facts)
    return 0


def looked_for(trials: Sequence[Row]) -> list[Row]:
    """Of many trials those running, the last failures and the newest, by number; trials that wait come last."""
    failures = {t.number for t in [t for t in trials if t.state == "failed"][-SHOWN_FAILED:]}
    states = {"running": 0, "waiting": 3}
    wanted = sorted(trials, key=lambda t: (1 if t.number in failures else states.get(t.state, 2), -t.number))
    return sorted(wanted[:SHOWN_TRIALS], key=lambda t: t.number)


@dataclass(frozen=True)
class Export:
    """The best trial's experiment, to be written."""

    file: Path
    trial: Row
    experiment: Experiment


def prepare_export(found: Found, max_flops: float | None, target: str | None) -> Export | None:
    """Select the trial whose experiment is to be written, if any.

    Raises:
        ValueError: no trial is finished, or is that cheap; the file exists already, or cannot be written.
    """
    if max_flops is not None and not 0 < max_flops < inf:
        raise ValueError(f"--max-flops {max_flops} must be a finite number above 0")
    file = file_to_write("--export", target)
    trial = found.report.best_within(max_flops)
    if file is None:
        return None
    if file.exists():
        raise ValueError(f"--export {target} exists already; choose another name, or remove it")
    seed = found.report.definition["seeds"][0]
    base = load_experiment(found.report.definition["base"], saved=True)
    own = {"training.seed": seed, "training.run_dir": None}
    return Export(file, trial, apply_point(base, trial.values, *own.items()))


def best(found: Found, max_flops: float | None, export: Export | None) -> int:
    """Print the frontier and the best trial (within a cost); with an export, write its experiment."""
    report, console = found.report, table_console()
    trial = report.best_within(max_flops)
    console.print(frontier_table(report))
    name = shlex.quote(found.name) + ("" if max_flops is None else f" --max-flops {max_flops:g}")
    facts = {"best": f"trial {trial.number}: {in_words(report.value)} {value_text(report, trial)}, {trial.written()}"}
    facts |= against(report)
    if export is None:
        facts["export it"] = f"python -m sleep_lightning sweep best {name} --export conf/best.yaml"
    else:
        content = export.experiment.to_dict()
        del content["tracking"]  # the sweep's; a single run is recorded where runs are
        head = f"# Trial {trial.number} of the sweep {report.name}: {facts['best'].partition(': ')[2]}.\n"
        try:
            write_text(export.file, head + OmegaConf.to_yaml(OmegaConf.create(content)))
        except OSError as error:
            return refuse(f"--export {export.file} cannot be written: {error.strerror}; choose another place")
        facts["written"] = str(export.file)
        facts["train it"] = f"python -m sleep_lightning fit --config {shlex.quote(str(export.file))}"
    print_facts(console, facts)
    return 0


def report(found: Found, laws: Laws | None = None) -> int:
    """Rewrite all files of the report. Returns the exit code: 2 if the folder cannot be written."""
    with reading(found.folder / JOURNAL, REMEDY):
        _ = found.report.importances
    try:
        files = write_report(found.report, found.folder, laws)
    except OSError as error:
        return refuse(f"{found.folder} cannot be written: {error.strerror}; copy the sweep elsewhere and name its path")
    console = table_console()
    for file in files:
        say(console, str(file))
    return 0


def frontier_table(report: Report) -> FittingTable:
    """The Pareto frontier; for a single objective, the best trials."""
    cost, value, several = in_words(report.cost), in_words(report.value), len(report.objectives) > 1
    what = f"what no other trial beats in {value} and {cost}" if several else "best trials"
    columns = (
        *(Column("trial"), Column(cost), Column(value), Column("seeds", 1), Column(ON, 2)),
        Column("point", text=True),
    )
    table = FittingTable(f"{report.name}: {what}", columns)
    for trial in report.best[:SHOWN_BEST]:
        cost = report.text(report.cost, trial.result[report.cost])
        table.add_row(str(trial.number), cost, mean_text(report, trial), *report.sureness(trial), trial.written())
    return table


def against(report: Report) -> dict[str, str]:
    """The baselines, and a warning if nothing beats the majority answer."""
    facts, text = {}, warning(report)
    if report.baselines:
        facts["baselines"] = ", ".join(f"{label} {score}" for label, score in baseline_facts(report))
    return facts if text is None else facts | {"warning": text}


def sweep_state(report: Report | None, supervised: bool) -> SweepState:
    """Whether a process runs the sweep; if none does, whether trials are left to be trained. None: it is not known."""
    if supervised:
        return "running"
    left = report is None or not report.finished or report.states.keys() & {"running", "waiting"}
    return "stopped" if left else "finished"


def report_facts(report: Report, folder: Path, state: SweepState) -> dict[str, str]:
    """The sweep's state, its trials by state, FLOPs spent and saved, where the files are."""
    facts = {"sweep": state, "trials": states(report, state) or "none"}
    facts["spent"] = in_flop(report.flops_spent)
    if report.states["pruned"]:
        facts["saved"] = f"{in_flop(report.flops_saved)} by pruning"
    if len(report.objectives) > 1 and report.finished:
        facts["hypervolume"] = f"{report.gain(report.finished):.3f}"
    facts |= against(report)
    facts["folder"] = str(folder)
    if (page := folder / "report.html").exists():
        facts["report"] = str(page)
    return facts


def states(report: Report, of_sweep: SweepState) -> str:
    """Trials by state, in words."""
    counts = report.states
    return ", ".join(f"{n} {_state(state, of_sweep == 'running')}" for state, n in counts.items())


def _state(state: str, supervised: bool) -> str:
    return "interrupted" if state == "running" and not supervised else state


def table_console() -> Console:
    """For tables: wide where it is no terminal."""
    console = plain_console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # a log does not wrap
    return console


def refuse(reason: str) -> int:
    """Say why a command that was checked failed all the same. Returns the exit code."""
    say(plain_console(stderr=True), f"error: {reason}")
    return 2
