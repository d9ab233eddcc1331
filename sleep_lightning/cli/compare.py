"""``compare``: train several arms over several seeds, and print one table."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.cli.console import plain_console, print_facts, say, time_line, warning
from sleep_lightning.compare.arms import build_arms
from sleep_lightning.compare.runs import Run, execute, plan_runs
from sleep_lightning.compare.serving import as_json, metrics, serve, serving_markdown, serving_table
from sleep_lightning.compare.table import (
    Row,
    build_rows,
    check_data_order,
    draw_table,
    kinds_of_spread,
    unequal_seeds,
    write_results,
)
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.cost.run_flops import predict_flops
from sleep_lightning.formatting import in_flop, with_unit
from sleep_lightning.names import check_path
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.progress import RunProgress
from sleep_lightning.runs.signals import SignalsInterrupt
from sleep_lightning.sleep.config import MOST_PASSES
from sleep_lightning.tracking.figures.runs import draw_comparison
from sleep_lightning.tracking.figures.serving import draw_serving
from sleep_lightning.tracking.loggers import open_mlflow, written_names
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.tracking.mlflow_run import commit_tags
from sleep_lightning.tracking.sync import send_all
from sleep_lightning.training.rate import training_rate
from sleep_lightning.training.runtime.environment import check_device, git_commit
from sleep_lightning.training.runtime.threads import choose_threads

MOST_JOBS = 4096


@dataclass(frozen=True)
class Comparison:
    """A checked request: all runs, what is done with them, and where it goes."""

    base: Experiment
    runs: list[Run]
    folder: Path
    jobs: int
    threads: int
    test_passes: list[int]
    logger: MLflowRun | None
    lock: IO[str]
    """Holds the folder against other processes."""


def prepare(
    config: str,
    overrides: list[str],
    arms: list[str],
    seeds: list[int],
    jobs: int,
    output: str | None,
    test_passes: list[int],
) -> Comparison:
    """All that can go wrong before any compute.

    Raises:
        ValueError: bad input.
    """
    base = load_experiment(config, overrides)
    check_device(base)
    if not 1 <= jobs <= MOST_JOBS:
        raise ValueError(f"--jobs {jobs} must be from 1 to {MOST_JOBS}")
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(f"--seeds {_words(seeds)} must be different numbers from 0 to {2**32 - 1}")
    if not all(1 <= n <= MOST_PASSES for n in test_passes):
        raise ValueError(f"--test-passes {_words(test_passes)} must be numbers of passes from 1 to {MOST_PASSES}")
    place = f"runs/compare-{Path(config).stem}" if output is None else output
    check_path("--output", place)
    folder = Path(place)
    threads = base.training.threads or max(1, choose_threads() // jobs)
    own = [("training.threads", threads), base.uri_override(), ("tracking.required", False)]
    runs = plan_runs(base, build_arms(base, arms), seeds, folder, *own)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder} cannot be written: {error.strerror}; choose another") from error
    for run in runs:
        run.progress(), run.summary  # raise if these files are damaged
    lock, logger = RunDirectory(folder).lock(), None
    if base.tracking.mlflow:
        directory = RunDirectory(folder)
        logger = open_mlflow(
            base.tracking, directory, folder.name, directory.mlflow_run_id, written=written_names(base, folder.name)
        )
        runs = runs if logger.run_id is None else [run.under(logger.run_id) for run in runs]
    return Comparison(base, runs, folder, jobs, threads, test_passes, logger, lock)


def _words(numbers: list[int]) -> str:
    """As they were typed."""
    return " ".join(map(str, numbers))


def compare(c: Comparison) -> int:
    """Train, score and print. Returns 0; 1 if a run failed; 128 + signal number if a signal ended it."""
    with SignalsInterrupt() as signals, c.lock:
        return _compare(c, signals)


def _compare(c: Comparison, signals: SignalsInterrupt) -> int:
    console = plain_console()
    status: Status = "FAILED"
    failed: list[Run] = []
    if c.logger is not None:
        c.logger.set_tags(commit_tags(git_commit()))
    try:
        failed = _train(c, plain_console(stderr=True))
        if c.logger is not None:
            send_all(c.folder, c.base.tracking.uri)
        rows = build_rows(c.runs, c.test_passes)
        if rows:
            _report(c, console, rows)
        status = "FAILED" if failed else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        console.print("stopped; the runs saved their state: rerun the command to resume them", highlight=False)
        return signals.exit_code
    finally:
        with signals.held():
            if c.logger is not None:
                c.logger.end(status)
    for run in failed:
        say(console, f"{run.name} failed: {run.last_words()} (all of it: {run.log})")
    return 1 if failed else 0


def _train(c: Comparison, console: Console) -> list[Run]:
    """Run what is not finished; returns the runs that ended without a result."""
    progress = _progress(console)
    bars: dict[Run, TaskID] = {}
    started: dict[Run, float] = {}
    todo = sum(run.summary is None for run in c.runs)
    runs = f"{len(c.runs)} run{'s' * (len(c.runs) != 1)}, {len(c.runs) - todo} already finished"
    say(console, f"{runs}, {c.jobs} at a time on {c.threads} thread{'s' * (c.threads != 1)} each")
    if todo:
        say(console, f"{in_flop(flops := _flops_left(c.runs))} to train: {_time(c, flops)}")
    before: set[Run] = set()
    with progress:
        for alive in execute(c.runs, c.jobs, c.threads, lambda text: say(console, text)):
            for run in alive:
                if run not in bars:
                    total, started[run] = run.experiment.training.max_steps, time.monotonic()
                    bars[run] = progress.add_task(run.name, total=total, at="")
                    say(console, f"{run.name}: training, log in {run.log}")
                at = run.progress()
                progress.update(bars[run], completed=at.step, at=_at(at))
            for run in before - alive:
                _done(console, run, time.monotonic() - started[run])
                progress.remove_task(bars[run])
            before = alive
        for run in before:
            _done(console, run, time.monotonic() - started[run])
    return [run for run in c.runs if run.summary is None]


def _progress(console: Console) -> Progress:
    """A bar for each run at work. What stands beside it wraps, so that no number is cut."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[at]}", table_column=Column(ratio=1)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        console=console,
        refresh_per_second=2,
        expand=True,
        disable=not console.is_terminal,
    )


def _at(at: RunProgress) -> str:
    """Beside a run's bar."""
    parts = [] if at.loss is None else [f"loss {at.loss:.3f}"]
    parts += [] if at.tokens_per_s is None else [f"{with_unit(at.tokens_per_s)} tokens/s"]
    parts += [] if at.accuracy is None else [f"exact match {at.accuracy}"]
    return ", ".join(parts)


def _flops_left(runs: list[Run]) -> float:
    """Training FLOPs of what is not finished; of an interrupted run only what is left."""
    return sum(predict_flops(run.experiment) - run.flops_spent for run in runs if run.summary is None)


def _time(c: Comparison, flops: float) -> str:
    return time_line(flops, training_rate(c.base, c.threads), min(c.jobs, sum(run.summary is None for run in c.runs)))


def _done(console: Console, run: Run, seconds: float) -> None:
    summary = run.summary
    what = "FAILED" if summary is None else f"validation exact match {Accuracy.of_summary(summary)}"
    say(console, f"{run.name}: {what} after {seconds:.0f} s")


def _accuracy(row: Row) -> Accuracy:
    """Of an arm; over several seeds the spread counts, not the number of answers."""
    answers = row.answers if len(row.exact_match) == 1 else None
    return Accuracy(sum(row.exact_match) / len(row.exact_match), answers, row.majority, row.uniform)


def _report(c: Comparison, console: Console, rows: list[Row]) -> None:
    data_order = check_data_order(c.runs)
    page = serve(rows, c.runs)
    files = write_results(rows, c.folder, data_order, serving_markdown(page), as_json(page))
    pictures = [c.folder / "comparison.png", c.folder / "serving.png"]
    draw_comparison(rows, pictures[0], f"{c.base.task.name}: test exact match, mean and range over seeds")
    draw_serving(page, pictures[1], f"{c.base.task.name}: test exact match over what an answer takes")
    if not console.is_terminal:
        console.width = max(console.width, 200)  # a log has no edge to wrap at
    title = f"{c.base.task.name}, test split, final weights, {kinds_of_spread(rows)}"
    console.print(draw_table(rows, title, f"see {files[1]}"))
    console.print(serving_table(page, f"see {files[1]}"))
    print_facts(
        console,
        warning(map(_accuracy, rows))
        | ({} if (unequal := unequal_seeds(rows)) is None else {"seeds": unequal})
        | {
            "training data": data_order,
            "table": str(files[1]),
            "figures": str(files[0]),
            "pictures": ", ".join(map(str, pictures)),
        },
    )
    if c.logger is not None:
        for file in (*files, *pictures):
            c.logger.log_artifact(file)
        for row, served in zip(rows, page, strict=True):
            name = row.arm if row.train_passes == str(row.test_passes) else f"{row.arm}_tested_with_{row.test_passes}"
            values = {"exact_match": sum(row.exact_match) / len(row.exact_match), "majority": row.majority} | metrics(
                served
            )
            c.logger.log_metrics({f"{name}/{key}": value for key, value in values.items()})
