"""The figures that a benchmark publishes, beside the scores that all tasks have."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from sleep_lightning.config import Experiment
from sleep_lightning.model import WindowModel
from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import Split
from sleep_lightning.training.metrics import Score
from sleep_lightning.training.prediction import decode


@runtime_checkable
class Published(Protocol):
    """A task whose benchmark has figures of its own, by the slice ``op``; one answer a row.

    Attributes:
        unordered: some answers are right in several forms, so that they must be decoded to be judged.
    """

    unordered: bool

    def same_answer(self, said: Sequence[int], label: Sequence[int]) -> bool:
        """Whether an answer is right."""

    def published_metrics(self, accuracy: Mapping[int, float]) -> dict[str, float | None]:
        """The figures."""


def published_scores(
    experiment: Experiment, model: WindowModel, split: Split, scores: Mapping[str, Score]
) -> dict[str, float | None] | None:
    """The published figures of a split that has been scored; None for a task without any."""
    task, t = experiment.task.build(), experiment.training
    if not isinstance(task, Published):
        return None
    right: dict[int, list[float]] = defaultdict(list)
    for position in range(t.val_batches):
        batch = task.batch(t.val_batch_size, seed=0, position=position, split=split)
        said = decode(model, batch.to(next(model.parameters()).device), experiment.sleep) if task.unordered else None
        for row, op in enumerate(batch.slices["op"].tolist()):
            if said is None:  # exact match is what is published
                right[op] = [scores.get(f"op_{op}", scores["all"]).exact_match]
                continue
            spoken = batch.labels[row] != IGNORE
            answers = (x[spoken].tolist() for x in (said[row].cpu(), batch.labels[row]))
            right[op].append(float(task.same_answer(*answers)))
    return task.published_metrics({op: float(torch.tensor(found).mean()) for op, found in right.items()})
