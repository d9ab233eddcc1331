"""``sweep solved``: how many seeds solve the task at each point, and how far one point is from the others."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from sleep_lightning.cli.console import print_facts
from sleep_lightning.cli.places import file_to_write
from sleep_lightning.cli.sweep_show import Found, refuse, table_console
from sleep_lightning.evidence.contrasts import Contrast, contrasts, named
from sleep_lightning.runs.files import write_text
from sleep_lightning.sweep.finished_runs import finished_runs, lost_runs
from sleep_lightning.sweep.solved import SeedResult, Solved, as_csv, exact_text, seed_results, solved
from sleep_lightning.sweep.space import written
from sleep_lightning.tables import Column, FittingTable
from sleep_lightning.tracking.figures.seeds import SeedsPanel, draw_seeds


@dataclass(frozen=True)
class Counted:
    """A checked request: the runs that have ended by point, what is compared, and where they are written."""

    name: str
    runs: list[SeedResult]
    points: list[Solved]
    threshold: float
    against: Solved | None
    contrasts: list[Contrast]
    csv: Path | None
    picture: Path | None


def prepare(found: Found, threshold: float, against: Sequence[str], csv: str | None, picture: str | None) -> Counted:
    """The finished runs of the sweep, and those that never will.

    Raises:
        ValueError: the threshold is no exact match, no run has finished, ``against`` names not one point or one that
            shares no two seeds with another, or a file cannot be written.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"--threshold {threshold} must be an exact match above 0, at most 1; try 0.95")
    files = file_to_write("--csv", csv), file_to_write("--picture", picture)
    finished = list(finished_runs(found.folder, found.report))
    runs = seed_results([*finished, *lost_runs(found.folder, found.report, finished)], threshold)
    if not any(run.counts for run in runs):
        raise ValueError(f"{found.folder}: no run has finished yet; go on with: sweep resume {shlex.quote(found.name)}")
    points = solved(runs, threshold)
    point = named(points, against) if against else None
    compared = contrasts(point, points) if point is not None else []
    if point is not None and not compared:
        raise ValueError(f"--against {' '.join(against)}: it shares no two finished seeds with another point; drop it")
    return Counted(found.name, runs, points, threshold, point, compared, *files)


def show(counted: Counted) -> int:
    """Print a row per point. Returns the exit code: 2 if a file cannot be written."""
    console = table_console()
    columns = (
        *(Column("point", text=True), Column("solved"), Column("share [95%]"), Column("steps, median", 2)),
        Column("exact match by seed", 1, text=True),
    )
    table = FittingTable(f"{counted.name}: seeds that end with exact match of {counted.threshold:g} or more", columns)
    for point in counted.points:
        share = f"{point.share:.2f} [{point.low:.2f}, {point.high:.2f}]"
        by_seed = " ".join(_exact(run, counted.threshold) for run in point.runs)
        steps = "-" if point.steps is None else str(point.steps)
        table.add_row(written(point.values), str(point), share, steps, by_seed)
    console.print(table)
    if counted.against is not None:
        console.print(_contrasts(counted.against, counted.contrasts))
    if counted.csv is not None:
        try:
            write_text(counted.csv, as_csv(counted.runs))
        except OSError as error:
            return refuse(f"--csv {counted.csv} cannot be written: {error.strerror}; choose another place")
    if counted.picture is not None:
        try:
            _draw(counted, counted.picture)
        except OSError as error:
            return refuse(f"--picture {counted.picture} cannot be written: {error.strerror}; choose another place")
    files = {"runs": counted.csv, "picture": counted.picture}
    if written_files := {name: str(file) for name, file in files.items() if file is not None}:
        print_facts(console, written_files)
    return 0


def _contrasts(point: Solved, compared: Sequence[Contrast]) -> FittingTable:
    columns = (
        *(Column("other point", text=True), Column("seeds"), Column("difference [95%]"), Column("p")),
        Column("corrected p"),
    )
    table = FittingTable(f"exact match of {written(point.values)} less that of the others, paired by seed", columns)
    for one in compared:
        p = (f"{x:.4f}" for x in (one.p, one.corrected))
        table.add_row(written(one.values), str(one.seeds), str(one.difference), *p)
    return table


def _draw(counted: Counted, file: Path) -> None:
    """The learning curve of every seed that counts."""
    varying = {key for point in counted.points for key, value in point.values.items() if value != _first(counted, key)}
    panels = [
        SeedsPanel(
            f"{written({k: v for k, v in point.values.items() if k in varying}) or 'all'}: {point}",
            [curve for run in point.runs if (curve := run.exact_over_flops)],
        )
        for point in counted.points
    ]
    majorities = [run.majority for run in counted.runs if run.majority is not None]
    levels = {"solved": counted.threshold} | ({"majority": mean(majorities)} if majorities else {})
    draw_seeds(panels, levels, file, f"{counted.name}: every seed, and how many end solved")


def _first(counted: Counted, key: str) -> object:
    return counted.points[0].values.get(key)


def _exact(run: SeedResult, threshold: float) -> str:
    return exact_text(run.exact_match, threshold) if run.end == "finished" else run.end
