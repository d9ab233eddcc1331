"""Exact match, per-label accuracy and loss, by slice, always beside the baselines."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import Baselines, TaskBatch, baselines


@dataclass(frozen=True)
class Score:
    """Scores over a set of rows.

    Attributes:
        rows: sequences scored.
        exact_match: share of rows with every label right.
        bit_accuracy: share of labels right.
        loss: mean cross-entropy per label, nats.
        baselines: what ignoring the evidence scores on the same rows.
    """

    rows: int
    exact_match: float
    bit_accuracy: float
    loss: float
    baselines: Baselines

    def as_metrics(self) -> dict[str, float]:
        """Flat names for loggers."""
        own = {"exact_match": self.exact_match, "bit_accuracy": self.bit_accuracy, "loss": self.loss}
        return own | vars(self.baselines)


@dataclass(frozen=True)
class Answers:
    """What a model said on a batch, on CPU: right or wrong and loss per position, labels, slices."""

    right: Tensor
    loss: Tensor
    labels: Tensor
    slices: dict[str, Tensor]

    @classmethod
    def of(cls, logits_BTV: Tensor, batch: TaskBatch) -> "Answers":
        loss = F.cross_entropy(logits_BTV.transpose(1, 2), batch.labels, ignore_index=IGNORE, reduction="none")
        right = logits_BTV.argmax(-1) == batch.labels
        slices = {name: x.cpu() for name, x in batch.slices.items()}
        return cls(right.cpu(), loss.cpu(), batch.labels.cpu(), slices)


def score(answers: Iterable[Answers]) -> dict[str, Score]:
    """Scores by slice: ``all``, then ``name_value`` for every slice that has more than one value."""
    parts = list(answers)
    right, loss, labels = (torch.cat([getattr(p, name) for p in parts]) for name in ("right", "loss", "labels"))
    everything = torch.ones(len(labels), dtype=torch.bool)
    scores = {"all": _score(right, loss, labels, everything)}
    for name in parts[0].slices:
        tags = torch.cat([p.slices[name] for p in parts])
        values = sorted(set(tags.tolist()))
        if len(values) > 1:
            scores |= {f"{name}_{value}": _score(right, loss, labels, tags == value) for value in values}
    return scores


def _score(right: Tensor, loss: Tensor, labels: Tensor, rows: Tensor) -> Score:
    right, loss, labels = right[rows], loss[rows], labels[rows]
    has_label = labels != IGNORE
    return Score(
        rows=len(labels),
        exact_match=float((right | ~has_label).all(1).double().mean()),
        bit_accuracy=float(right[has_label].double().mean()),
        loss=float(loss[has_label].double().mean()),
        baselines=baselines(labels),
    )
