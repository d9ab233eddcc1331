"""Whether runs that are compared seed by seed trained on the same data: all paired tests assume it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sleep_lightning.compare.data_order import first_difference
from sleep_lightning.evidence.scores import FinishedRun

DIGITS = 16
"""Hexadecimal digits that are kept of a hash."""


@dataclass(frozen=True)
class DataOrder:
    """The data of all runs of one task and seed, in any sweep.

    Attributes:
        first: sweep and level of the first of them.
        seed: of the training.
        runs: number of runs.
        hashes: number of pairs of hashes compared, each over all batches up to a step.
        difference: the first difference; empty if the data agree.
        data: a hash of task and batch size, by which tables of several machines are matched.
        digests: as JSON, hashes by step of all batches up to it.
        apart: other tables with runs of the seed, whose data could not be compared with those here.
    """

    first: str
    seed: int
    runs: int
    hashes: int
    difference: str
    data: str = ""
    digests: str = ""
    apart: int = 0


def data_orders(runs: Sequence[FinishedRun]) -> list[DataOrder]:
    """One row per task, batch size and seed, in the order of the runs."""
    groups: dict[tuple[str, int], dict[str, dict[str, str]]] = {}
    for run in runs:
        experiment = run.process.experiment
        data = json.dumps([experiment.to_dict()["task"], experiment.training.batch_size])
        summary = run.process.summary or {}
        groups.setdefault((data, run.seed), {})[f"{run.sweep} {run.level}"] = summary["data_digests"]
    rows = []
    for (data, seed), digests in groups.items():
        hashes, difference = first_difference(digests)
        short = hashlib.sha256(data.encode()).hexdigest()[:DIGITS]
        rows.append(DataOrder(next(iter(digests)), seed, len(digests), hashes, difference, short, _said(digests)))
    return rows


def joined_orders(own: Sequence[DataOrder], others: Iterable[Sequence[DataOrder]]) -> list[DataOrder]:
    """A row per task, batch size and seed of several machines' tables, whose runs are compared over the steps they
    share. ``runs`` is that of the table with the most: two may have the same."""
    groups = dict[tuple[str, int], list[DataOrder]]()
    rows = list(dict.fromkeys([*own, *(row for table in others for row in table)]))
    data = {(row.first, row.seed): row.data for row in rows if row.data}  # which an older table does not name
    for row in rows:
        groups.setdefault((row.data or data.get((row.first, row.seed), row.first), row.seed), []).append(row)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups.values()]


def _joined(rows: Sequence[DataOrder]) -> DataOrder:
    digests = {f"{row.first} of table {i}": json.loads(row.digests or "{}") for i, row in enumerate(rows, 1)}
    hashes, difference = first_difference(digests)
    (_, first), *others = digests.items()
    return replace(
        rows[0],
        runs=max(row.runs for row in rows),
        hashes=max(row.hashes for row in rows) + hashes,
        difference=next(filter(None, [*(row.difference for row in rows), difference]), ""),
        digests=_said(digests),
        apart=sum(row.apart for row in rows) + sum(not first.keys() & other.keys() for _, other in others),
    )


def _said(digests: Mapping[str, Mapping[str, str]]) -> str:
    """All steps' hashes as JSON, those of the first run that has the step."""
    known = dict[str, str]()
    for by_step in digests.values():
        known = {**by_step, **known}
    return json.dumps({step: known[step][:DIGITS] for step in sorted(known, key=int)})
