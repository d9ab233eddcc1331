"""Whether runs that are compared seed by seed trained on the same data: all paired tests assume it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sleep_lightning.compare.data_order import first_difference
from sleep_lightning.evidence.scores import FinishedRun


@dataclass(frozen=True)
class DataOrder:
    """The data of all runs of one task and seed, in any sweep.

    Attributes:
        first: sweep and level of the first of them.
        seed: of the training.
        runs: number of runs.
        hashes: number of pairs of hashes compared, each over all batches up to a step.
        difference: the first difference; empty if the data agree.
    """

    first: str
    seed: int
    runs: int
    hashes: int
    difference: str


def data_orders(runs: Sequence[FinishedRun]) -> list[DataOrder]:
    """One row per task, batch size and seed, in the order of the runs."""
    groups: dict[tuple[str, int], dict[str, dict[str, str]]] = {}
    for run in runs:
        experiment = run.process.experiment
        data = json.dumps([experiment.to_dict()["task"], experiment.training.batch_size])
        summary = run.process.summary or {}
        groups.setdefault((data, run.seed), {})[f"{run.sweep} {run.level}"] = summary["data_digests"]
    rows = []
    for (_, seed), digests in groups.items():
        hashes, difference = first_difference(digests)
        rows.append(DataOrder(next(iter(digests)), seed, len(digests), hashes, difference))
    return rows
