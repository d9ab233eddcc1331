"""The contract of a task: batches that are deterministic in (seed, split, position)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from sleep_lightning.sleep import IGNORE, SleepConfig, align_windows

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskBatch:
    """Sequences with labels already aligned to the logits (``labels[:, t]`` is the target of position t).

    Attributes:
        tokens: int64 ``[B, T]``.
        labels: int64 ``[B, T]``, -100 where there is no loss.
        slices: difficulty, name -> int64 ``[B]`` of every row or ``[B, answers of a row]`` of every answer.
        answers: int64 ``[B, T]``, the index of the answer in its row that a label belongs to; None: one answer a row.
        digest: hash of this batch and all batches before it in the training stream; "" outside training.
    """

    tokens: Tensor
    labels: Tensor
    slices: Mapping[str, Tensor] = field(default_factory=dict)
    answers: Tensor | None = None
    digest: str = ""

    def map(self, f: Callable[[Tensor], Tensor]) -> "TaskBatch":
        """Apply ``f`` to every tensor."""
        slices = {name: f(x) for name, x in self.slices.items()}
        answers = None if self.answers is None else f(self.answers)
        return TaskBatch(f(self.tokens), f(self.labels), slices, answers, self.digest)

    def to(self, device: torch.device) -> "TaskBatch":
        return self.map(lambda x: x.to(device))

    def rows(self, start: int, stop: int) -> "TaskBatch":
        """Sequences ``start:stop``."""
        return self.map(lambda x: x[start:stop])

    def pick(self, rows: Tensor) -> "TaskBatch":
        """Sequences by their indices."""
        return self.map(lambda x: x[rows])

    def aligned(self, sleep: SleepConfig, neutral_pad: int | None) -> "TaskBatch":
        """The same rows, their windows side by side (``sleep.align_windows``): what is to be planned and run."""
        place_BT = align_windows(self.tokens, self.labels, sleep, neutral_pad)
        return self if place_BT is None else self.moved(place_BT, neutral_pad)

    def moved(self, place_BT: Tensor, neutral_pad: int | None) -> "TaskBatch":
        """The same rows, with every token where ``align_windows`` puts it."""
        place_BT = place_BT.to(self.tokens.device)

        def move(x_BT: Tensor, empty: int) -> Tensor:
            return x_BT.gather(1, place_BT.clamp(min=0)).masked_fill(place_BT < 0, empty)

        assert neutral_pad is not None, "only pads that the model ignores may be put between tokens"
        answers = None if self.answers is None else move(self.answers, 0)
        return replace(self, tokens=move(self.tokens, neutral_pad), labels=move(self.labels, IGNORE), answers=answers)


class TaskConfig(Protocol):
    """A dataclass with a ``name``; ``build`` makes the task."""

    @property
    def name(self) -> str: ...

    def build(self) -> "Task": ...


@runtime_checkable
class Anchored(Protocol):
    """A task config that names files."""

    def anchored(self) -> TaskConfig:
        """The same with absolute paths, so that it means the same in any directory."""
        ...


class Task(ABC):
    """A generator of sequences whose answers depend on evidence that has left the window.

    Subclasses set ``vocab`` (printable tokens by id), ``sequence_length`` (T) and ``context_length`` (tokens
    before the first that may carry a label), and implement ``sample``. ``neutral_pad`` is the token, if any, that
    the model must ignore.
    """

    vocab: tuple[str, ...]
    sequence_length: int
    context_length: int
    neutral_pad: int | None = None

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """Draw a batch. All randomness comes from ``generator``; splits share no evidence."""

    def batch(self, batch_size: int, *, seed: int, position: int, split: Split = "train") -> TaskBatch:
        """The batch at a position of the endless stream (seed, split): the same for every model and every N."""
        generator = torch.Generator().manual_seed(random_seed(seed, SPLITS.index(split), position))
        return self.sample(batch_size, generator, split)


def random_seed(*numbers: int) -> int:
    """A seed from several numbers: a 63-bit hash (splitmix64 steps), so that neighbours share no random stream."""
    mask, state = (1 << 64) - 1, 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ number) * 0xBF58476D1CE4E5B9 & mask
        state = (state ^ state >> 30) * 0x94D049BB133111EB & mask
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class Baselines:
    """Scores of a model that ignores the evidence: printed beside every accuracy.

    Attributes:
        majority_exact_match: share of answers that the best constant answer matches.
        majority_token_accuracy: share of labels that the best constant per position gets right.
        uniform_exact_match: expected exact match of guessing uniformly among the labels that occur at each position.
        unigram_loss: entropy of the labels, nats: the loss of knowing how often each occurs and nothing else.
    """

    majority_exact_match: float
    majority_token_accuracy: float
    uniform_exact_match: float
    unigram_loss: float


def baselines(labels_AT: Tensor) -> Baselines:
    """Baselines of answers, a row each (-100: no label), fitted on the same labels (so never too low).

    Labels are compared by their order in the row, wherever they are in it.
    """
    order = (labels_AT == IGNORE).to(torch.int8).argsort(dim=1, stable=True)
    answers = labels_AT.gather(1, order)[:, : int((labels_AT != IGNORE).sum(1).max())]
    spoken = answers != IGNORE
    _, counts = torch.unique(answers, dim=0, return_counts=True)
    right, guessed = 0, torch.ones(len(answers), dtype=torch.float64)
    for column, has_label in zip(answers.T, spoken.T, strict=True):
        occurring, times = torch.unique(column[has_label], return_counts=True)
        right += int(times.max())
        guessed[has_label] /= len(occurring)
    share = torch.unique(answers[spoken], return_counts=True)[1].double() / spoken.sum()
    return Baselines(
        majority_exact_match=int(counts.max()) / len(answers),
        majority_token_accuracy=right / int(spoken.sum()),
        uniform_exact_match=float(guessed.mean()),
        unigram_loss=float(-(share * share.log()).sum()),
    )


def by_answer(batch: TaskBatch, *per_label: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Split rows into answers: values per label ``[B, T]`` as ``[answers, most labels of one]``, and slices.

    The first tensor must be ``batch.labels``, whose rows end in -100; those of the others are 0 there.
    """
    labels = batch.labels
    number_BT = torch.zeros_like(labels) if batch.answers is None else batch.answers
    tags = [x.shape[1] for x in batch.slices.values() if x.ndim == 2]  # a share of a batch may have fewer answers
    n_answers = max(int(number_BT.max()) + 1, *tags, 1)
    mine_BAT = number_BT[:, None] == torch.arange(n_answers, device=labels.device)[:, None]
    mine = (mine_BAT & (labels != IGNORE)[:, None]).flatten(0, 1)
    kept = mine.any(1)
    width = int(mine.sum(1).max())
    order = (~mine[kept]).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    spoken = mine[kept].gather(1, order)

    def cut(x: Tensor) -> Tensor:
        of_answer = x[:, None].expand(-1, n_answers, -1).flatten(0, 1)[kept].gather(1, order)
        return of_answer.masked_fill(~spoken, IGNORE if x is labels else 0)

    slices = {
        name: (x if x.ndim == 2 else x[:, None].expand(-1, n_answers)).reshape(-1)[kept]
        for name, x in batch.slices.items()
    }
    return [cut(x) for x in per_label], slices
