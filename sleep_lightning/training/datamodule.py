"""Batches by position in an endless stream: any step's data can be drawn again, on any machine, for any N."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sleep_lightning.config import Experiment
from sleep_lightning.tasks import Split, Task, TaskBatch, random_seed


class _Stream(IterableDataset[TaskBatch]):
    def __init__(self, task: Task, batch_size: int, seed: int, start: int, digest: str) -> None:
        self.task, self.batch_size, self.seed, self.start, self.digest = task, batch_size, seed, start, digest

    def batches(self) -> Iterator[TaskBatch]:
        """From ``start`` on."""
        return (self.task.batch(self.batch_size, seed=self.seed, position=i) for i in count(self.start))

    def __iter__(self) -> Iterator[TaskBatch]:
        digest = self.digest
        for batch in self.batches():
            digest = chained_digest(digest, batch)
            yield replace(batch, digest=digest)


class _Repeated(_Stream):
    """``unique`` sequences, drawn once, in a new order in every epoch; its size is a whole number of batches."""

    def __init__(self, task: Task, batch_size: int, seed: int, start: int, digest: str, unique: int) -> None:
        super().__init__(task, batch_size, seed, start, digest)
        self.unique = unique

    def batches(self) -> Iterator[TaskBatch]:
        drawn = self.task.batch(self.unique, seed=self.seed, position=0)
        per_epoch = self.unique // self.batch_size
        for epoch in count(self.start // per_epoch):
            generator = torch.Generator().manual_seed(random_seed(self.seed, epoch))
            order = torch.randperm(self.unique, generator=generator).split(self.batch_size)
            first = self.start % per_epoch if epoch == self.start // per_epoch else 0
            yield from (drawn.pick(rows) for rows in order[first:])


class _Fixed(Dataset[TaskBatch]):
    def __init__(self, task: Task, batch_size: int, n_batches: int, seed: int, split: Split) -> None:
        self.task, self.batch_size, self.n_batches, self.seed, self.split = task, batch_size, n_batches, seed, split

    def __len__(self) -> int:
        return self.n_batches

    def __getitem__(self, position: int) -> TaskBatch:
        if position >= self.n_batches:
            raise IndexError(position)
        return self.task.batch(self.batch_size, seed=self.seed, position=position, split=self.split)


def chained_digest(before: str, batch: TaskBatch) -> str:
    """Hash of everything up to this batch: two runs with the same one have seen the same data in the same order."""
    digest = hashlib.sha256(before.encode())
    for x in (batch.tokens, batch.labels):
        digest.update(x.numpy().tobytes())
    return digest.hexdigest()[:32]


def _loader(dataset: Dataset[TaskBatch]) -> DataLoader[TaskBatch]:
    """Batches as they come. Its own generator: a loader must not advance the RNG that checkpoints save."""
    return DataLoader(dataset, batch_size=None, generator=torch.Generator())


class TaskDataModule(pl.LightningDataModule):
    """Training batches from ``position`` on; fixed validation and test batches (seed 0: the same for all seeds).

    Attributes:
        position: training batches consumed so far; saved in checkpoints, so a resumed run sees the next batch.
        digest: hash of those batches in order, so that runs can prove that they saw the same.
    """

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.experiment, self.task, self.position, self.digest = experiment, experiment.task.build(), 0, ""

    def consumed(self, batch: TaskBatch) -> None:
        """A training step has been made with this batch."""
        self.position, self.digest = self.position + 1, batch.digest

    def train_dataloader(self) -> DataLoader[TaskBatch]:
        t = self.experiment.training
        stream = (self.task, t.batch_size, t.seed, self.position, self.digest)
        return _loader(_Stream(*stream) if t.unique_sequences is None else _Repeated(*stream, t.unique_sequences))

    def val_dataloader(self) -> DataLoader[TaskBatch]:
        return self._fixed("validation")

    def test_dataloader(self) -> DataLoader[TaskBatch]:
        return self._fixed("test")

    def _fixed(self, split: Split) -> DataLoader[TaskBatch]:
        t = self.experiment.training
        return _loader(_Fixed(self.task, t.val_batch_size, t.val_batches, 0, split))

    def predict_dataloader(self) -> DataLoader[TaskBatch]:
        return self._fixed("test")

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "digest": self.digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position, self.digest = state_dict["position"], state_dict["digest"]
