"""Exact match, token accuracy and loss, by slice, always beside the baselines."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.accuracy import Accuracy, standard_error
from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import Baselines, TaskBatch, baselines, by_answer


@dataclass(frozen=True)
class Score:
    """Scores over a set of answers.

    Attributes:
        answers: answers scored.
        exact_match: share of answers with every label right.
        token_accuracy: share of labels right.
        loss: mean cross-entropy per label, nats.
        baselines: what ignoring the evidence scores on the same answers.
    """

    answers: int
    exact_match: float
    token_accuracy: float
    loss: float
    baselines: Baselines

    @property
    def perplexity(self) -> float:
        """Of the labels."""
        return exp(min(self.loss, 700.0))

    @property
    def exact_match_se(self) -> float:
        """Standard error of the exact match, by the number of answers."""
        return standard_error(self.exact_match, self.answers)

    @property
    def accuracy(self) -> Accuracy:
        """Its exact match, for display."""
        b = self.baselines
        return Accuracy(self.exact_match, self.answers, b.majority_exact_match, b.uniform_exact_match)

    def as_metrics(self) -> dict[str, float]:
        """Flat names for loggers."""
        own = {"exact_match": self.exact_match, "exact_match_se": self.exact_match_se}
        own |= {"token_accuracy": self.token_accuracy, "loss": self.loss, "perplexity": self.perplexity}
        return own | vars(self.baselines)


@dataclass(frozen=True)
class Answers:
    """What a model said on a batch, on CPU, a row an answer: right or wrong and loss per label, labels, slices."""

    right: Tensor
    loss: Tensor
    labels: Tensor
    slices: dict[str, Tensor]

    @classmethod
    def of(cls, logits_BTV: Tensor, batch: TaskBatch) -> "Answers":
        """Of all logits."""
        loss = F.cross_entropy(logits_BTV.transpose(1, 2), batch.labels, ignore_index=IGNORE, reduction="none")
        return cls.cut(logits_BTV.argmax(-1) == batch.labels, loss, batch)

    @classmethod
    def cut(cls, right_BT: Tensor, loss_BT: Tensor, batch: TaskBatch) -> "Answers":
        """Of what is right and the loss at every label."""
        (labels, right, loss), slices = by_answer(batch, batch.labels, right_BT, loss_BT)
        return cls(right.cpu(), loss.cpu(), labels.cpu(), {name: x.cpu() for name, x in slices.items()})


def score(answers: Iterable[Answers]) -> dict[str, Score]:
    """Scores by slice: ``all``, then ``name_value`` for every slice that has more than one value."""
    parts = list(answers)
    width = max(p.labels.shape[1] for p in parts)
    right = torch.cat([F.pad(p.right, (0, width - p.right.shape[1])) for p in parts])
    loss = torch.cat([F.pad(p.loss, (0, width - p.loss.shape[1])) for p in parts])
    labels = torch.cat([F.pad(p.labels, (0, width - p.labels.shape[1]), value=IGNORE) for p in parts])
    everything = torch.ones(len(labels), dtype=torch.bool)
    scores = {"all": _score(right, loss, labels, everything)}
    for name in parts[0].slices:
        tags = torch.cat([p.slices[name] for p in parts])
        values = sorted(set(tags.tolist()))
        if len(values) > 1:
            scores |= {f"{name}_{value}": _score(right, loss, labels, tags == value) for value in values}
    return scores


def _score(right: Tensor, loss: Tensor, labels: Tensor, mine: Tensor) -> Score:
    right, loss, labels = right[mine], loss[mine], labels[mine]
    has_label = labels != IGNORE
    return Score(
        answers=len(labels),
        exact_match=float((right | ~has_label).all(1).double().mean()),
        token_accuracy=float(right[has_label].double().mean()),
        loss=float(loss[has_label].double().mean()),
        baselines=baselines(labels),
    )
