"""``bench``: ratios against named peers in one run, as tables and as JSON."""

import platform
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.status import Status as Spinner
from rich.table import Table

from sleep_lightning.bench.coordinates import bench_coordinates
from sleep_lightning.bench.injection import bench_injection
from sleep_lightning.bench.injection_table import injection_table
from sleep_lightning.bench.memory import bench_memory
from sleep_lightning.bench.operator import bench_operator
from sleep_lightning.bench.overhead import bench_overhead
from sleep_lightning.bench.pool import bench_pool
from sleep_lightning.bench.ranks import bench_ranks
from sleep_lightning.bench.session import ANSWERING, BREAK_EVEN, bench_session
from sleep_lightning.bench.startup import bench_startup
from sleep_lightning.bench.step import bench_step
from sleep_lightning.bench.storage import bench_storage
from sleep_lightning.cli.console import plain_console, say
from sleep_lightning.cli.seconds import check_seconds
from sleep_lightning.runs.files import write_json, write_text
from sleep_lightning.tracking.figures.coordinates import draw_coordinates
from sleep_lightning.tracking.figures.injection import draw_injection
from sleep_lightning.tracking.figures.serving import draw_session
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.training.runtime.environment import describe_environment
from sleep_lightning.training.runtime.threads import choose_threads

BENCHES: dict[str, Callable[[float], Iterator[dict[str, object]]]] = {
    "operator": bench_operator,
    "step": bench_step,
    "memory": bench_memory,
    "overhead": bench_overhead,
    "ranks": bench_ranks,
    "startup": bench_startup,
    "storage": bench_storage,
    "coordinates": bench_coordinates,
    "session": bench_session,
    "pool": bench_pool,
}
OF_A_MODEL: dict[str, Callable[[Sequence[str]], Iterator[dict[str, object]]]] = {"injection": bench_injection}
"""Benches of a trained model, which run when they are named."""
DOING = {
    "operator": "the memory rules forward and backward, against transformers' and flash-linear-attention's torch code",
    "step": "training steps against a baseline, each contender in a process of its own",
    "memory": "the peak of steps in processes of their own, beside its prediction; the time of checkpointing",
    "overhead": "what a step spends outside of gradients and optimizer",
    "ranks": "steps of several ranks on this machine",
    "startup": "the parts of a start of fit, then the first line of every command",
    "storage": "trials and validations written by several processes, reports of many trials",
    "coordinates": "activations over widths, as the coordinate check has it",
    "session": "answers over N and tokens read, beside loops, depth, a full cache, retrieval and compaction; then Q*",
    "pool": "1,000 sessions of which a part fits into memory: questions, tokens, loads, saves",
    "injection": "how long answers follow a poisoned window, over N and the clean windows behind it",
}
"""What is said of each before it begins."""


def bench(
    names: list[str],
    seconds: float,
    output: Path | None,
    checkpoints: Sequence[str] | None = None,
    mlflow: MLflowRun | None = None,
) -> int:
    """Run benches by name (if none is given, all but those of trained models, which ``checkpoints`` name).

    What is measured is said, tables are printed as each is done, and rows are written as JSON at the end, with
    pictures (PNG) of coordinates, sessions or an injection beside it; of an injection also a table (Markdown). These
    files and the environment are recorded in ``mlflow``, which is ended.

    Raises:
        ValueError: an unknown name, or no time.
    """
    status: Status = "FAILED"
    try:
        files, environment = _measured(names, seconds, output, checkpoints)
        if mlflow is not None:
            mlflow.log_hyperparams(environment)
            for file in files:
                mlflow.log_artifact(file)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if mlflow is not None:
            mlflow.end(status)
    return 0


def _measured(
    names: list[str], seconds: float, output: Path | None, checkpoints: Sequence[str] | None
) -> tuple[list[Path], dict[str, Any]]:
    """The files that were written, and the environment."""
    console = plain_console()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads, environment = choose_threads(), describe_environment(device)
    environment["processor"] = platform.processor() or platform.machine()
    console.print(f"{threads} threads, torch {environment['torch']}, {environment['device']}", highlight=False)
    rows: list[dict[str, object]] = []
    for name in names or BENCHES:
        say(console, f"{name}: {DOING[name]}")
        with plain_console(stderr=True).status(f"{name}: measuring") as status:
            rows_of = OF_A_MODEL[name](checkpoints or ()) if name in OF_A_MODEL else BENCHES[name](seconds)
            measured = _said(rows_of, name, status)
            if name in OF_A_MODEL:
                rows += (done := list(measured))
                say(console, injection_table(done))
                continue
            for _, group in groupby(measured, key=lambda row: (row["what"], row.get("shape"))):
                done = list(group)
                console.print(_table(done))
                rows += done
    return [] if output is None else _written(output, rows, environment), environment


def _written(output: Path, rows: list[dict[str, object]], environment: dict[str, Any]) -> list[Path]:
    """The rows, and what is drawn of them."""
    write_json(output, {"environment": environment, "rows": rows})
    files = [output]
    if drawn := [row for row in rows if str(row["what"]).startswith("coordinates")]:
        draw_coordinates(drawn, picture := output.with_suffix(".png"))
        files.append(picture)
    if injected := [row for row in rows if str(row["what"]).startswith("injection")]:
        own = output.with_name(f"{output.stem}_injection.png") if drawn else output.with_suffix(".png")
        draw_injection(injected, own)
        write_text(output.with_suffix(".md"), injection_table(injected))
        files += [own, output.with_suffix(".md")]
    if drawn := [row for row in rows if row["what"] in (ANSWERING, BREAK_EVEN)]:
        draw_session(drawn, picture := output.with_name(f"{output.stem}_session.png"))
        files.append(picture)
    return files


def _said(rows: Iterator[dict[str, object]], name: str, status: Spinner) -> Iterator[dict[str, object]]:
    """The rows; what each is of is said as it comes."""
    for number, row in enumerate(rows, 1):
        last = ", ".join(str(row[key]) for key in ("what", "shape", "contender") if key in row)
        status.update(f"{name}: {number} measured, the last: {last}")
        yield row


def check(names: list[str], seconds: float, checkpoints: Sequence[str] | None = None) -> None:
    """Raises ValueError for what ``bench`` cannot run."""
    for name in names:
        if name not in DOING:
            raise ValueError(f"bench {name!r} is unknown; use one of {', '.join(DOING)}")
        if name in OF_A_MODEL and checkpoints is None:
            raise ValueError(f"bench {name} is of a trained model; give --checkpoint results/models/depo, for example")
    if checkpoints is not None and not set(names) & OF_A_MODEL.keys():
        raise ValueError(
            f"--checkpoint {' '.join(checkpoints)} is for bench {', '.join(OF_A_MODEL)} alone; name it, or drop it"
        )
    check_seconds(seconds)


def _table(rows: list[dict[str, object]]) -> Table:
    title = f"{rows[0]['what']}, {rows[0].get('shape', '')}"
    table = Table(title=title, title_justify="left")
    columns = [column for column in rows[0] if column not in ("what", "shape")]
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "contender" else "right")
    for row in rows:
        values = [row.get(column) for column in columns]
        table.add_row(*(_cell(x) for x in values))
    return table


def _cell(x: object) -> str:
    """A cell of a table; what was not measured is a dash."""
    return "-" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x)
