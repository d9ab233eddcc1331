"""``sweep law``: loss over N at equal training FLOPs, its minimum, and what a pass is worth in tokens."""

import shlex
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sleep_lightning.cli.console import print_facts
from sleep_lightning.cli.sweep_show import Found, report, table_console
from sleep_lightning.formatting import in_flop, score
from sleep_lightning.redaction import one_line
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.sweep.bootstrap import interval_name
from sleep_lightning.sweep.cells import Selected
from sleep_lightning.sweep.folder import is_supervised, load_saved
from sleep_lightning.sweep.report.law import JSON, PNG, Laws, SliceLaw
from sleep_lightning.sweep.space import written
from sleep_lightning.tables import Column, FittingTable
from sleep_lightning.tracking.mlflow_run import open_run
from sleep_lightning.tracking.mlflow_store import store_errors


@dataclass(frozen=True)
class LawRequest:
    """A checked request: a sweep, and what follows from its runs by N and budget."""

    found: Found
    laws: Laws


def prepare(found: Found) -> LawRequest:
    """Fit. Raises ValueError: no run, or no seed, has finished at every N and budget."""
    try:
        return LawRequest(found, Laws.of(found.folder, found.report))
    except ValueError as error:
        raise ValueError(f"{found.folder}: {error}; go on with: sweep resume {shlex.quote(found.name)}") from error


def show(request: LawRequest) -> int:
    """Print a table for each slice, write the files, and copy them into the sweep's MLflow run, if it has one.

    Returns the exit code: 2 if they cannot be written.
    """
    console, found = table_console(), request.found
    for law in request.laws.slices:
        console.print(_table(law, found.folder / JSON))
        exponent = (
            "none: a minimum at the edge or not determined, or fewer than three budgets"
            if law.exponent is None
            else law.exponent
        )
        print_facts(console, {"N* ~ C^a, a": str(exponent), "law": law.verdict()})
    if any(one.others for one in request.laws.selected):
        console.print(_others(request.laws.selected))
    if (code := report(found, request.laws)) == 0:
        _record(found)
    return code


def _record(found: Found) -> None:
    """A sweep that is running does it itself; a copied folder's run is that of the original."""
    directory = RunDirectory(found.folder)
    run_id = directory.mlflow_run_id
    if run_id is None or directory.original() is not None or is_supervised(found.folder):
        return
    failures: tuple[type[Exception], ...] = (ValueError, *store_errors())
    try:
        tracking = load_saved(found.folder).base.tracking
        if not tracking.mlflow:
            return
        client = open_run(tracking.uri, tracking.experiment, None, run_id, running=False).client
        for file in (JSON, PNG, "report.html"):
            if (path := found.folder / file).exists():
                client.log_artifact(run_id, str(path))
    except failures as error:
        warnings.warn(f"{found.folder}: not copied into MLflow: {one_line(error)}", stacklevel=2)


def _table(law: SliceLaw, file: Path) -> FittingTable:
    depths = sorted({cell.n_passes for cell in law.cells})
    columns = (
        *(Column("budget", label=True), *(Column(f"N = {n}", 2) for n in depths)),
        *(Column("N* [interval]"), Column("lowest mean", 1)),
    )
    interval = f"its {interval_name(law.seeds)} over them"
    title = f"{law.name}: mean loss over {law.seeds} seed(s), nats per label; N* with {interval}"
    return FittingTable(title, columns, list(_rows(law, depths)), elsewhere=f"see {file}")


def _rows(law: SliceLaw, depths: list[int]) -> Iterator[list[str]]:
    curves = {curve.budget: curve for curve in law.curves}
    for budget in sorted({cell.budget for cell in law.cells}):
        pairs = zip(law.cells, law.means, strict=True)
        means = {cell.n_passes: mean for cell, mean in pairs if cell.budget == budget}
        cells = [score(means[n]) if n in means else "-" for n in depths]
        if (curve := curves.get(budget)) is None:
            yield [in_flop(budget), *cells, "-", "-"]
            continue
        n, share = max(curve.wins.items(), key=lambda item: item[1])
        edge = " (edge)" if curve.at_edge else ""
        yield [in_flop(budget), *cells, f"{curve.best}{edge}", f"N = {n} in {share:.0%}" if share else "-"]


def _others(selected: Sequence[Selected]) -> FittingTable:
    columns = (Column("budget", label=True), Column("N"), Column("chosen", text=True), Column("of"))
    table = FittingTable("the other keys, chosen by the mean loss of all answers", columns)
    for one in selected:
        table.add_row(in_flop(one.budget), str(one.n_passes), written(one.others), str(one.tried))
    return table
