"""``reproduce``: run the shipped reproduction sweeps, score them on the test split, and write RESULTS.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sleep_lightning.commands import sweep
from sleep_lightning.commands.report import print_facts
from sleep_lightning.evidence.figures import draw_all
from sleep_lightning.evidence.findings import DEPO, Finding, find
from sleep_lightning.evidence.page import results_page
from sleep_lightning.evidence.scores import RunScore, finished_runs, score_run
from sleep_lightning.evidence.tables import read_table, write_table
from sleep_lightning.evidence.throughput import Speed, measure
from sleep_lightning.run_directory import write_text

PATTERN = "reproduce_*.yaml"
TEST_PASSES = {DEPO: {"n1": (1, 2, 4), "n2": (1, 2, 4), "n4": (1, 2, 4, 8)}}
"""N at test of a sweep's levels, besides that of the training."""
PAGE, TABLES = "RESULTS.md", "results"


@dataclass(frozen=True)
class Reproduction:
    """A checked request.

    Attributes:
        jobs: sweeps to run or go on with; none: only the page is written, from its tables.
        output: where RESULTS.md goes, and its folder of tables and pictures.
        seconds: for each question of throughput.
    """

    jobs: list[sweep.SweepJob]
    output: Path
    seconds: float

    @property
    def tables(self) -> Path:
        return self.output / TABLES


def prepare(sweeps: str, output: str, seconds: float, *, page_only: bool) -> Reproduction:
    """All that can go wrong before any compute.

    Raises:
        ValueError: no sweeps there, a bad one, no time, or a place that cannot be written or has no tables.
    """
    if seconds <= 0:
        raise ValueError(f"--seconds {seconds} must be above 0")
    asked = Reproduction([], Path(output), seconds)
    try:
        asked.tables.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error.strerror}; choose another") from error
    if page_only:
        if not (asked.tables / "scores.csv").exists():
            raise ValueError(f"--page-only: {asked.tables} has no scores.csv yet; run reproduce without it first")
        return asked
    paths = sorted(Path(sweeps).glob(PATTERN))
    if not paths:
        raise ValueError(f"--sweeps {sweeps} has no {PATTERN}; the shipped ones lie in sweeps/")
    return Reproduction([sweep.prepare(str(path), None) for path in paths], asked.output, seconds)


def reproduce(r: Reproduction) -> int:
    """Run what is not finished, then write. Returns 0, or the first sweep's exit code that is not 0."""
    console = Console()
    for job in r.jobs:
        console.print(f"[bold]{job.sweep.spec.name}[/bold] (killed, the same command goes on)", highlight=False)
        code = sweep.sweep(job)
        if code != 0:
            return code
    if r.jobs:
        write_table(RunScore, _scores(r, console), r.tables / "scores.csv")
        if not (r.tables / "throughput.csv").exists():
            console.print("timing training steps", highlight=False)
            write_table(Speed, list(measure(r.seconds)), r.tables / "throughput.csv", digits=4)
    rows, speeds = read_table(RunScore, r.tables / "scores.csv"), _speeds(r)
    findings, pictures = find(rows), draw_all(rows, speeds, r.tables)
    write_text(r.output / PAGE, results_page(rows, findings, speeds, pictures, TABLES))
    console.print(_table(findings))
    print_facts(console, {"results": str(r.output / PAGE), "tables and pictures": str(r.tables)})
    return 0


def _speeds(r: Reproduction) -> list[Speed]:
    file = r.tables / "throughput.csv"
    return read_table(Speed, file) if file.exists() else []


def _scores(r: Reproduction, console: Console) -> Iterator[RunScore]:
    for job in r.jobs:
        runs = finished_runs(job.folder)
        console.print(f"scoring {len(runs)} runs of {job.sweep.spec.name} on the test split", highlight=False)
        for run in runs:
            yield from score_run(run, TEST_PASSES.get(run.sweep, {}).get(run.level, ()))


def _table(findings: list[Finding]) -> Table:
    table = Table(title="what holds", title_justify="left")
    for column in ("claim", "verdict", "figures"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.claim, finding.verdict, finding.figures)
    return table
