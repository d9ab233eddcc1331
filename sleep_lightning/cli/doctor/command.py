"""``doctor``: runs all checks, prints them as a table, writes them as JSON."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.cli.doctor import experiment as of_experiment
from sleep_lightning.cli.doctor import installation, kernels, machine, storage, tracking
from sleep_lightning.cli.doctor.finding import Check, Finding, run_checks

if TYPE_CHECKING:
    from sleep_lightning.config import Experiment

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True)
class Request:
    """A checked request: the experiment to check as well, if any, and the JSON file."""

    experiment: "Experiment | None"
    output: Path | None
    started: float


def add_doctor_arguments(command: argparse.ArgumentParser) -> None:
    """The command line of ``doctor``."""
    command.add_argument("overrides", nargs="*", metavar="key=value", help="change a key of the experiment")
    command.add_argument("--config", metavar="YAML", help="check this experiment as well, e.g. conf/rule110.yaml")
    command.add_argument("--output", metavar="FILE", help="write the findings to a file (JSON)")


def prepare(config: str | None, overrides: Sequence[str], output: str | None) -> Request:
    """Raises ValueError: bad input."""
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise ValueError(f"--output {output}: there is no folder {Path(output).parent}; make it first")
    experiment, started = None, _process_start()
    if config is not None or overrides:
        try:
            from sleep_lightning.config import load_experiment

            experiment = load_experiment(config, overrides)
        except ImportError:  # checks of the installation name the package; without it there is no experiment
            pass
    return Request(experiment, None if output is None else Path(output), started)


def _process_start() -> float:
    try:
        import psutil

        return float(psutil.Process().create_time())
    except ImportError:  # the check of packages says so
        return time.time()


def checks(request: Request) -> list[tuple[str, Check]]:
    """All checks in the order of the table: imports first, so that their time is theirs alone."""
    experiment = request.experiment
    run_dir = None if experiment is None else experiment.training.run_dir
    runs = Path("runs" if run_dir is None else run_dir)
    every: list[tuple[str, Check]] = [
        ("imports", partial(installation.check_imports, request.started)),
        ("Python", installation.check_python),
        ("packages", installation.check_packages),
        ("torch build", installation.check_torch_build),
        ("CPU threads", machine.check_threads),
        ("CUDA devices", machine.check_cuda),
        ("packages of GPU kernels", installation.check_gpu_kernel_packages),
        ("C++ compiler", kernels.check_compiler),
        ("CPU kernels", kernels.check_native),
        ("memory rules", kernels.check_rules),
        ("fp32 products", machine.check_fp32_matmul),
        ("energy", machine.check_energy),
        ("temporary folder", machine.check_temporary_folder),
        ("disk", partial(storage.check_disk, runs)),
        ("runs folder", partial(storage.check_locks, runs)),
        ("MLflow store", partial(tracking.check_tracking, None if experiment is None else experiment.tracking)),
    ]
    if experiment is not None:
        every += [
            ("experiment: device", partial(of_experiment.check_device_and_backends, experiment)),
            ("experiment: memory", partial(of_experiment.check_step_memory, experiment)),
        ]
    return every


def doctor(request: Request) -> int:
    """Check, print, write. Returns 0 if there is no error, else 1."""
    try:
        findings = _in_a_table(checks(request))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        findings = run_checks(checks(request))
        for one in findings:
            print(f"{one.state}: {one.check}: {one.found}" + (f"; to do: {one.remedy}" if one.remedy else ""))
    errors, warned = (sum(one.state == state for one in findings) for state in ("error", "warning"))
    print(f"{errors} error{'s' * (errors != 1)}, {warned} warning{'s' * (warned != 1)}")
    if request.output is not None:
        content = {"errors": errors, "warnings": warned, "checks": [asdict(one) for one in findings]}
        request.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
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
        state = Text(one.state, style=STYLES[one.state])
        table.add_row(Text(one.check), state, Text(one.found), Text(one.remedy))
    Console().print(table)
    return findings
