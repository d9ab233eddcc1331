"""``reproduce``: run the shipped reproduction sweeps, score them on the test split, and write RESULTS.md.

With ``--so-far`` nothing is trained: what is finished is scored. With ``--page-only`` nothing is scored either.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sleep_lightning.cli import sweep
from sleep_lightning.cli.console import plain_console, print_facts
from sleep_lightning.cli.seconds import check_seconds
from sleep_lightning.evidence.data_order import DataOrder, data_orders
from sleep_lightning.evidence.figures import draw_all
from sleep_lightning.evidence.findings import DEPO, PASSES, Finding, find
from sleep_lightning.evidence.page import results_page
from sleep_lightning.evidence.scores import FinishedRun, RunScore, finished_runs, score_run
from sleep_lightning.evidence.tables import Row, read_table, write_table
from sleep_lightning.evidence.throughput import Speed, measure
from sleep_lightning.names import check_path
from sleep_lightning.runs.files import check_writable, write_text
from sleep_lightning.sweep.folder import SWEEPS, load_saved
from sleep_lightning.sweep.storage import is_sweep
from sleep_lightning.sweep.study import definition

PATTERN = "reproduce_*.yaml"
TEST_PASSES = {
    PASSES: {"1": (1, 2, 4), "2": (1, 2, 4), "4": (1, 2, 4, 8)},
    DEPO: {"n1": (1, 2, 4), "n2": (1, 2, 4), "n4": (1, 2, 4, 8)},
}
"""N at test of a sweep's levels, besides that of the training."""
PAGE, TABLES = "RESULTS.md", "results"
SCORES, ORDER, SPEEDS = "scores.csv", "data_order.csv", "throughput.csv"


@dataclass(frozen=True)
class Reproduction:
    """A checked request.

    Attributes:
        jobs: the sweeps.
        output: where RESULTS.md goes, and its folder of tables and pictures.
        seconds: for each question of throughput.
        train: run what is not finished.
        score: test what is finished; else the tables are there already.
    """

    jobs: list[sweep.SweepJob]
    output: Path
    seconds: float
    train: bool
    score: bool

    @property
    def tables(self) -> Path:
        return self.output / TABLES

    @property
    def planned(self) -> int:
        """Runs of all sweeps."""
        trials = [prod(len(values) for values in job.sweep.space.grid().values()) for job in self.jobs]
        return sum(n * len(job.sweep.spec.seeds) for n, job in zip(trials, self.jobs, strict=True))


def prepare(sweeps: str, output: str, seconds: float, *, so_far: bool, page_only: bool) -> Reproduction:
    """All that can go wrong before any compute.

    Raises:
        ValueError: no sweeps there, a bad one, no time, a place that cannot be written, no tables for ``page_only``,
            no runs or those of another definition for ``so_far``, or both options at once.
    """
    check_seconds(seconds)
    check_path("--sweeps", sweeps)
    check_path("--output", output)
    if so_far and page_only:
        raise ValueError("--so-far scores what is finished and --page-only does not; give one of them")
    paths = sorted(Path(sweeps).glob(PATTERN))
    if not paths:
        raise ValueError(f"--sweeps {sweeps} has no {PATTERN}; the shipped ones lie in sweeps/")
    jobs = [sweep.prepare(str(path), None) for path in paths]
    asked = Reproduction(jobs, Path(output), seconds, train=not so_far and not page_only, score=not page_only)
    try:
        asked.tables.mkdir(parents=True, exist_ok=True)
        for file in (asked.output / PAGE, asked.tables / SCORES):
            check_writable(file)
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error.strerror}; choose another") from error
    if page_only and not (asked.tables / SCORES).exists():
        raise ValueError(f"--page-only: {asked.tables} has no {SCORES} yet; run reproduce without it first")
    if so_far:
        if not any(is_sweep(job.folder) for job in jobs):
            raise ValueError(f"--so-far: no sweep of {sweeps} has begun in {SWEEPS}; run reproduce without it first")
        for job in jobs:
            if is_sweep(job.folder) and definition(load_saved(job.folder)) != definition(job.sweep):
                raise ValueError(
                    f"--so-far: {job.folder} holds another {job.sweep.spec.name} than {sweeps} does; move it away, or "
                    f"give the file that it came from"
                )
    return asked


def reproduce(r: Reproduction) -> int:
    """Run what is not finished, then write. Returns 0, or the first sweep's exit code that is not 0."""
    console = plain_console()
    for job in r.jobs if r.train else ():
        console.print(f"{job.sweep.spec.name} (if this is killed, rerun the command to resume)", highlight=False)
        code = sweep.sweep(job)
        if code != 0:
            return code
    if r.score:
        runs = [run for job in r.jobs if is_sweep(job.folder) for run in finished_runs(job.folder)]
        write_table(RunScore, _scores(runs, console), r.tables / SCORES)
        write_table(DataOrder, data_orders(runs), r.tables / ORDER)
    if r.train and not (r.tables / SPEEDS).exists():
        console.print("timing training steps", highlight=False)
        write_table(Speed, list(measure(r.seconds)), r.tables / SPEEDS, digits=4)
    rows, order = read_table(RunScore, r.tables / SCORES), _read(DataOrder, r.tables / ORDER)
    speeds = _read(Speed, r.tables / SPEEDS)
    findings, pictures = find(rows), draw_all(rows, speeds, r.tables)
    write_text(r.output / PAGE, results_page(rows, findings, speeds, order, pictures, TABLES, planned=r.planned))
    console.print(_table(findings))
    print_facts(console, {"results": str(r.output / PAGE), "tables and pictures": str(r.tables)})
    return 0


def _read(kind: type[Row], file: Path) -> list[Row]:
    return read_table(kind, file) if file.exists() else []


def _scores(runs: list[FinishedRun], console: Console) -> Iterator[RunScore]:
    for name, of_sweep in groupby(runs, key=lambda run: run.sweep):
        console.print(f"scoring the runs of {name} on the test split", highlight=False)
        for run in of_sweep:
            yield from score_run(run, TEST_PASSES.get(run.sweep, {}).get(run.level, ()))


def _table(findings: list[Finding]) -> Table:
    table = Table(title="what holds", title_justify="left")
    for column in ("claim", "verdict", "figures"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.claim, finding.verdict, finding.figures)
    return table
