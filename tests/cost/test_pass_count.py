"""Passes and FLOPs of an adaptive sleep."""

from dataclasses import replace

import pytest
import torch

from sleep_lightning.config import load_experiment
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.cost.pass_count import PassCount
from sleep_lightning.training.evaluation import score_split

N = 3


def counted(tolerance: float) -> tuple[PassCount, float, float, float]:
    """The count, its FLOPs, and those of N = 1 and of all N."""
    small = ["task.name=rule110", "task.ring_size=8", "task.steps=[1]", "sleep.window_size=8", f"sleep.n_passes={N}"]
    small += ["model.d_model=16", "training.val_batch_size=16", "training.val_batches=2"]
    e = load_experiment(None, [*small, f"sleep.tolerance={tolerance}"])
    torch.manual_seed(0)
    count = PassCount()
    score_split(e, e.build_model(), "test", observe=count.observe)
    once = replace(e, sleep=replace(e.sleep, n_passes=1))
    return count, count.flops(e), sequence_cost(once).forward.total(), sequence_cost(e).forward.total()


@pytest.mark.parametrize(("tolerance", "passes"), [(0.0, N), (1e9, 1)])
def test_the_bounds(tolerance: float, passes: int) -> None:
    count, flops, least, most = counted(tolerance)
    assert count.mean == passes
    assert flops == pytest.approx(most if passes == N else least)
    assert count.rows == dict.fromkeys(range(1, passes + 1), 2 * 16 * 4)  # of every sequence and string


def test_between_them() -> None:
    count, flops, least, most = counted(0.7)
    assert 1 < count.mean < N
    assert least < flops < most
