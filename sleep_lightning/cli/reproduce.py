"""``reproduce``: run the shipped reproduction sweeps, score them on the test split, and write RESULTS.md.

With ``--so-far`` nothing is trained: what is finished is scored. With ``--page-only`` nothing is scored either. With
``--share I/N`` one of N machines trains its seeds, and ``--join`` takes in the tables of the others. ``--paper`` runs
the paper's own sizes instead, which take a GPU, in their order, and writes PAPER.md after each sweep.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sleep_lightning.cli import sweep
from sleep_lightning.cli.console import plain_console, print_facts, say, text_table
from sleep_lightning.cli.paper_sizes import check_machine, prepare_where_there_are_weights
from sleep_lightning.cli.seconds import check_seconds
from sleep_lightning.evidence.data_order import DataOrder, data_orders, joined_orders
from sleep_lightning.evidence.figures import draw_all
from sleep_lightning.evidence.findings import DEPO, RULE110, Finding, find
from sleep_lightning.evidence.joining import joined_scores
from sleep_lightning.evidence.page import results_page
from sleep_lightning.evidence.paper import paper_page
from sleep_lightning.evidence.scores import FinishedRun, RunScore, finished_runs, score_run
from sleep_lightning.evidence.tables import Row, read_table, write_table
from sleep_lightning.evidence.throughput import Speed, measure
from sleep_lightning.names import check_path
from sleep_lightning.runs.files import check_writable, write_text
from sleep_lightning.sweep.folder import SWEEPS, load_saved
from sleep_lightning.sweep.share import parts_of, whole_name
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.study import definition

PATTERN, PAPER_PATTERN = "reproduce_*.yaml", "paper_*.yaml"
TEST_PASSES = {key: {"n1": (1, 2, 4), "n2": (1, 2, 4), "n4": (1, 2, 4, 8)} for key in (RULE110, DEPO)}
"""N at test of a sweep's levels, besides that of the training."""
PAGE, PAPER_PAGE, TABLES = "RESULTS.md", "PAPER.md", "results"
SCORES, PAPER_SCORES, ORDER, SPEEDS = "scores.csv", "paper_scores.csv", "data_order.csv", "throughput.csv"


@dataclass(frozen=True)
class Reproduction:
    """A checked request.

    Attributes:
        jobs: the sweeps.
        output: where RESULTS.md goes, and its folder of tables and pictures.
        seconds: for each question of throughput.
        train: run what is not finished.
        score: test what is finished; else the tables are there already.
        planned: runs of all sweeps, whole.
        join: folders of other machines' tables.
        paper: the paper's sizes.
        left_out: sweeps of the paper that cannot be run here, and why: no weights.
    """

    jobs: list[sweep.SweepJob]
    output: Path
    seconds: float
    train: bool
    score: bool
    planned: int
    join: tuple[Path, ...] = ()
    paper: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def page(self) -> Path:
        return self.output / (PAPER_PAGE if self.paper else PAGE)

    @property
    def scores(self) -> str:
        """Name of the table of scores."""
        return PAPER_SCORES if self.paper else SCORES

    @property
    def tables(self) -> Path:
        return self.output / TABLES

    @property
    def folders(self) -> list[Path]:
        """Of the sweeps and of shares of them that have begun here."""
        return [part for job in self.jobs for part in parts_of(job.folder.with_name(whole_name(job.folder.name)))]


def prepare(
    sweeps: str,
    output: str,
    seconds: float,
    *,
    so_far: bool,
    page_only: bool,
    share: str | None = None,
    records: str | None = None,
    join: Sequence[str] = (),
    paper: bool = False,
) -> Reproduction:
    """All that can go wrong before any compute.

    Raises:
        ValueError: no sweeps there, a bad one, no time, a place that cannot be written, no tables for ``page_only`` or
            to join, no runs for ``so_far``, bad records, runs of another definition, or options that exclude each
            other.
    """
    check_seconds(seconds)
    check_path("--sweeps", sweeps)
    check_path("--output", output)
    if so_far and page_only:
        raise ValueError("--so-far scores what is finished and --page-only does not; give one of them")
    if share is not None and (so_far or page_only):
        raise ValueError(f"--share {share} trains, and --so-far and --page-only do not; give one of them")
    if records is not None and (so_far or page_only):
        raise ValueError(
            f"--records {records} takes and adds runs, and --so-far and --page-only do not; give one of them"
        )
    pattern = PAPER_PATTERN if paper else PATTERN
    paths = sorted(Path(sweeps).glob(pattern))
    if not paths:
        raise ValueError(f"--sweeps {sweeps} has no {pattern}; the shipped ones lie in sweeps/")
    train, tables = not so_far and not page_only, tuple(map(Path, join))
    left_out: list[str] = []
    if paper:
        prepared, left_out = prepare_where_there_are_weights(paths, train=train)
    else:
        prepared = {path: sweep.prepare(str(path), None) for path in paths}
    whole = list(prepared.values())
    planned = sum(len(job.sweep.space.points()) * len(job.sweep.spec.seeds) for job in whole)
    if paper and train:
        check_machine(whole)
    jobs = whole
    if share is not None or records is not None:
        jobs = [sweep.prepare(str(path), None, share, _records(records, job)) for path, job in prepared.items()]
    score = not page_only
    asked = Reproduction(jobs, Path(output), seconds, train, score, planned, tables, paper, tuple(left_out))
    try:
        asked.tables.mkdir(parents=True, exist_ok=True)
        for file in (asked.page, asked.tables / asked.scores):
            check_writable(file)
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error.strerror}; choose another") from error
    for folder in tables:
        check_path("--join", folder)
        if not (folder / asked.scores).is_file():
            raise ValueError(
                f"--join {folder} has no {asked.scores}; name a results/ folder that reproduce has written"
            )
        read_table(RunScore, folder / asked.scores)
    if page_only and not (asked.tables / asked.scores).exists():
        raise ValueError(f"--page-only: {asked.tables} has no {asked.scores} yet; run reproduce without it first")
    if page_only:
        read_table(RunScore, asked.tables / asked.scores)
    if so_far and not asked.folders:
        raise ValueError(f"--so-far: no sweep of {sweeps} has begun in {SWEEPS}; run reproduce without it first")
    for job in whole if asked.score else ():
        for part in parts_of(job.folder):
            if _definition(load_saved(part)) != _definition(job.sweep):
                raise ValueError(
                    f"{part} holds another {job.sweep.spec.name} than {sweeps} does; move it away, or give the file "
                    f"that it came from"
                )
    return asked


def _records(folder: str | None, job: sweep.SweepJob) -> str | None:
    """The sweep's file of records."""
    return None if folder is None else str(Path(folder) / f"runs_{job.sweep.spec.name}.jsonl")


def _definition(one: Sweep) -> dict[str, Any]:
    """Without the seeds, of which there may be a share."""
    return definition(one) | {"seeds": None}


def reproduce(r: Reproduction) -> int:
    """Run what is not finished, then write. Returns 0, or the first sweep's exit code that is not 0."""
    console = plain_console()
    for line in r.left_out:
        say(console, line)
    for job in r.jobs if r.train else ():
        console.print(f"{job.sweep.spec.name} (if this is killed, rerun the command to resume)", highlight=False)
        code = sweep.sweep(job)
        if code != 0:
            return code
        if r.paper and (code := _write_paper(r, console)) != 0:  # a sweep of these takes days
            return code
    if r.paper:
        return _write_paper(r, console) if not r.train else 0
    if (code := _write_scores(r, console)) != 0:
        return code
    if r.train and not (r.tables / SPEEDS).exists():
        console.print("timing training steps", highlight=False)
        write_table(Speed, list(measure(r.seconds)), r.tables / SPEEDS, digits=4)
    rows, order = read_table(RunScore, r.tables / r.scores), _read(DataOrder, r.tables / ORDER)
    speeds = _read(Speed, r.tables / SPEEDS)
    findings, pictures = find(rows), draw_all(rows, speeds, r.tables)
    write_text(r.page, results_page(rows, findings, speeds, order, pictures, TABLES, planned=r.planned))
    console.print(_table(findings))
    print_facts(console, {"results": str(r.page), "tables and pictures": str(r.tables)})
    return 0


def _write_paper(r: Reproduction, console: Console) -> int:
    if (code := _write_scores(r, console)) == 0:
        write_text(r.page, paper_page(read_table(RunScore, r.tables / r.scores), r.planned))
        print_facts(console, {"results": str(r.page), "scores": str(r.tables / r.scores)})
    return code


def _write_scores(r: Reproduction, console: Console) -> int:
    """The tables of scores and data, from this machine's runs (from its tables, if nothing is scored) and others'.

    Returns the exit code: 2 if a table to join holds runs of another size.
    """
    if not r.score and not r.join:
        return 0
    try:
        _join_scores(r, console)
    except ValueError as error:
        say(plain_console(stderr=True), f"error: {error}")
        return 2
    return 0


def _join_scores(r: Reproduction, console: Console) -> None:
    if r.score:
        runs = _of_each_seed(run for folder in r.folders for run in finished_runs(folder))
        scores, order = list(_scores(runs, console)), data_orders(runs)
    else:
        scores, order = read_table(RunScore, r.tables / r.scores), _read(DataOrder, r.tables / ORDER)
    others = [(str(folder), read_table(RunScore, folder / r.scores)) for folder in r.join]
    write_table(RunScore, joined_scores(scores, others), r.tables / r.scores)
    if r.paper:
        return
    orders = [_read(DataOrder, folder / ORDER) for folder in r.join]
    write_table(DataOrder, joined_orders(order, orders), r.tables / ORDER)


def _of_each_seed(runs: Iterable[FinishedRun]) -> list[FinishedRun]:
    """One run for each sweep, level and seed, of a sweep and its shares together: one with weights, where there is."""
    found = dict[tuple[str, str, int], FinishedRun]()
    for run in runs:
        if found.setdefault((run.sweep, run.level, run.seed), run).restored and not run.restored:
            found[run.sweep, run.level, run.seed] = run
    return list(found.values())


def _read(kind: type[Row], file: Path) -> list[Row]:
    return read_table(kind, file) if file.exists() else []


def _scores(runs: list[FinishedRun], console: Console) -> Iterator[RunScore]:
    for name, of_sweep in groupby(runs, key=lambda run: run.sweep):
        console.print(f"scoring the runs of {name} on the test split", highlight=False)
        for run in of_sweep:
            yield from score_run(run, TEST_PASSES.get(run.sweep, {}).get(run.level, ()))


def _table(findings: list[Finding]) -> Table:
    rows = ((finding.claim, finding.verdict, finding.figures) for finding in findings)
    return text_table("what holds", ("claim", "verdict", "figures"), rows)
