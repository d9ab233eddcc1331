"""``doctor``: runs all checks, prints them as a table, writes them as JSON."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleep_lightning.cli.doctor.finding import Check, Finding, run_checks
from sleep_lightning.cli.places import file_to_write
from sleep_lightning.names import printable
from sleep_lightning.runs.files import write_text

if TYPE_CHECKING:
    from sleep_lightning.config import Experiment

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="change a key of the experiment")
    parser.add_argument("--config", metavar="YAML", help="check this experiment as well, e.g. conf/rule110.yaml")
    parser.add_argument("--output", metavar="FILE", help="write the findings to a file (JSON)")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    """Read all input; what is returned checks. Raises ValueError: bad input."""
    output = file_to_write("--output", a.output)
    experiment = None
    if a.config is not None or a.overrides:
        try:
            from sleep_lightning.config import load_experiment

            experiment = load_experiment(a.config, a.overrides)
        except ImportError:  # the check of versions names the package
            pass
    return lambda: doctor(experiment, output)


def checks(experiment: "Experiment | None") -> list[tuple[str, Check]]:
    """All checks in the order of the table."""
    run_dir = None if experiment is None else experiment.training.run_dir
    every: list[tuple[str, Check]] = [
        ("versions", _of("versions", "check_versions")),
        ("devices", _of("versions", "check_devices")),
        ("CPU kernels", _of("kernels", "check_native")),
        ("memory rules", _of("kernels", "check_rules")),
        ("runs folder", _of("stores", "check_runs", Path(run_dir or "runs"))),
        ("MLflow store", _of("stores", "check_tracking", None if experiment is None else experiment.tracking)),
    ]
    if experiment is not None:
        every.append(("experiment: memory rules", _of("kernels", "check_rules", experiment)))
        every.append(("experiment: memory", _of("memory", "check_step_memory", experiment)))
    return every


def _of(module: str, check: str, *arguments: Any) -> Check:
    """Its module is imported when it runs: a package that is missing or broken must end as a row of the table."""
    return lambda: getattr(import_module(f"sleep_lightning.cli.doctor.{module}"), check)(*arguments)


def doctor(experiment: "Experiment | None", output: Path | None) -> int:
    """Check, print, write. Returns 0 if there is no error, else 1."""
    try:
        findings = _in_a_table(checks(experiment))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        findings = run_checks(checks(experiment))
        for one in findings:
            print(f"{one.state}: {one.check}: {one.found}" + (f"; to do: {one.remedy}" if one.remedy else ""))
    errors, warned = (sum(one.state == state for one in findings) for state in ("error", "warning"))
    print(f"{errors} error{'s' * (errors != 1)}, {warned} warning{'s' * (warned != 1)}")
    if output is not None:
        content = {"errors": errors, "warnings": warned, "checks": [asdict(one) for one in findings]}
        write_text(output, json.dumps(content, indent=2) + "\n")
    return 1 if errors else 0


def _in_a_table(checks: Sequence[tuple[str, Check]]) -> list[Finding]:
    """Run the checks and print the table. Raises ModuleNotFoundError at once if rich is missing."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    with Console(stderr=True).status("checking") as status:
        findings = run_checks(checks, lambda name: status.update(f"checking {name}"))
    table = Table()
    for column in ("check", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for one in findings:
        found, remedy = Text(printable(one.found)), Text(printable(one.remedy))
        table.add_row(Text(one.check), Text(one.state, style=STYLES[one.state]), found, remedy)
    Console().print(table)
    return findings
