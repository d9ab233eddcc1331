"""Training on the same sequences again and again."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.training.datamodule import TaskDataModule

UNIQUE, SIZE = 12, 4
PER_EPOCH = UNIQUE // SIZE


def experiment(*overrides: str) -> Experiment:
    small = [
        "task.name=rule110",
        "task.ring_size=16",
        "task.steps=[1]",
        "sleep.window_size=16",
        f"training.batch_size={SIZE}",
    ]
    return load_experiment(None, [*small, *overrides])


def epochs(data: TaskDataModule, n: int) -> list[Tensor]:
    """Tokens of the next ``n`` epochs."""
    batches = [batch.tokens for batch in islice(data.train_dataloader(), n * PER_EPOCH)]
    return [torch.cat(batches[i : i + PER_EPOCH]) for i in range(0, len(batches), PER_EPOCH)]


def rows(tokens: Tensor) -> list[list[int]]:
    return sorted(tokens.tolist())


def test_every_epoch_holds_the_same_sequences_in_another_order() -> None:
    first, second, third = epochs(TaskDataModule(experiment(f"training.unique_sequences={UNIQUE}")), 3)
    assert rows(first) == rows(second) == rows(third)
    assert len({tuple(row) for row in first.tolist()}) == UNIQUE
    assert not first.equal(second)
    assert not second.equal(third)


def test_batches_are_mixed_anew() -> None:
    first, second = epochs(TaskDataModule(experiment(f"training.unique_sequences={UNIQUE}")), 2)
    assert {tuple(map(tuple, rows(x))) for x in first.split(SIZE)} != {
        tuple(map(tuple, rows(x))) for x in second.split(SIZE)
    }


@pytest.mark.parametrize("position", [0, 2, 3, 7])
def test_a_resumed_run_sees_the_next_batch(position: int) -> None:
    e = experiment(f"training.unique_sequences={UNIQUE}")
    whole = [batch.tokens for batch in islice(TaskDataModule(e).train_dataloader(), 10)]
    resumed = TaskDataModule(e)
    resumed.load_state_dict({"position": position, "digest": ""})
    rest = [batch.tokens for batch in islice(resumed.train_dataloader(), 10 - position)]
    assert all(a.equal(b) for a, b in zip(whole[position:], rest, strict=True))


def test_another_seed_repeats_other_sequences() -> None:
    one, other = (
        epochs(TaskDataModule(experiment(f"training.unique_sequences={UNIQUE}", f"training.seed={seed}")), 1)[0]
        for seed in (0, 1)
    )
    assert rows(one) != rows(other)


@pytest.mark.parametrize("unique", [0, 6, -4])
def test_a_part_of_a_batch_is_refused(unique: int) -> None:
    with pytest.raises(ValueError, match=rf"training\.unique_sequences={unique} must be a multiple"):
        experiment(f"training.unique_sequences={unique}")
