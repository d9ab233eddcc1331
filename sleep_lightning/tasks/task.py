"""What a task is: a config that can be asked for batches, deterministic in (seed, split, position)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from sleep_lightning.sleep import IGNORE

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskBatch:
    """Sequences with labels already aligned to the logits (``labels[:, t]`` is the target of position t).

    Attributes:
        tokens: int64 ``[B, T]``.
        labels: int64 ``[B, T]``, -100 where there is no loss.
        slices: difficulty of every row, name -> int64 ``[B]``.
    """

    tokens: Tensor
    labels: Tensor
    slices: Mapping[str, Tensor] = field(default_factory=dict)

    def map(self, f: Callable[[Tensor], Tensor]) -> "TaskBatch":
        """Apply ``f`` to every tensor."""
        return TaskBatch(f(self.tokens), f(self.labels), {name: f(x) for name, x in self.slices.items()})

    def to(self, device: torch.device) -> "TaskBatch":
        return self.map(lambda x: x.to(device))

    def rows(self, start: int, stop: int) -> "TaskBatch":
        """Sequences ``start:stop``."""
        return self.map(lambda x: x[start:stop])


class TaskConfig(Protocol):
    """A dataclass with a ``name``; ``build`` makes the task it describes."""

    name: str

    def build(self) -> "Task": ...


class Task(ABC):
    """A generator of sequences whose answers depend on evidence that has left the window.

    Subclasses set ``vocab`` (printable tokens by id), ``sequence_length`` (T) and ``context_length`` (tokens
    before the first that may carry a label), and implement ``sample``.
    """

    vocab: tuple[str, ...]
    sequence_length: int
    context_length: int

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """Draw a batch. Everything random comes from ``generator``; splits share no evidence."""

    def batch(self, batch_size: int, *, seed: int, position: int, split: Split = "train") -> TaskBatch:
        """The batch at a position of the endless stream (seed, split): the same for every model and every N."""
        generator = torch.Generator().manual_seed(_mix(seed, SPLITS.index(split), position))
        return self.sample(batch_size, generator, split)


def _mix(*numbers: int) -> int:
    """A 63-bit hash of integers (splitmix64 steps), so that neighbouring positions share no random stream."""
    mask, state = (1 << 64) - 1, 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ number) * 0xBF58476D1CE4E5B9 & mask
        state = (state ^ state >> 30) * 0x94D049BB133111EB & mask
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class Baselines:
    """What a model that ignores the evidence scores: printed beside every accuracy.

    Attributes:
        majority_exact_match: share of rows that the best constant answer gets wholly right.
        majority_bit_accuracy: share of labels that the best constant per position gets right.
        uniform_exact_match: expected exact match of guessing uniformly among the labels that occur.
    """

    majority_exact_match: float
    majority_bit_accuracy: float
    uniform_exact_match: float


def baselines(labels_BT: Tensor) -> Baselines:
    """Baselines of a batch of labels ``[B, T]`` (-100: none), fitted on those very labels (so never too low).

    A constant answer is the same wherever it stands in a row: labels are compared by their order in the row.
    """
    first = torch.argsort((labels_BT == IGNORE).int(), dim=1, stable=True)
    answers = labels_BT.gather(1, first)[:, : int((labels_BT != IGNORE).sum(1).max())]
    majority = answers.mode(0).values
    _, counts = torch.unique(answers, dim=0, return_counts=True)
    choices = len(torch.unique(answers[answers != IGNORE]))
    lengths = (answers != IGNORE).sum(1).double()
    right = (answers == majority) & (answers != IGNORE)
    return Baselines(
        majority_exact_match=float(counts.max() / len(answers)),
        majority_bit_accuracy=float(right.sum() / lengths.sum()),
        uniform_exact_match=float((1.0 / choices) ** lengths.mean()) if choices else 0.0,
    )
