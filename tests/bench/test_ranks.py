"""What ``bench ranks`` compares is the same step, taken together or alone."""

import pytest
import torch

from sleep_lightning.bench.ranks import bench_ranks, rank_step
from sleep_lightning.bench.step import Setting, our_step
from sleep_lightning.training.distributed.exchange import Exchange

TINY = Setting(2, batch=4, strings=2, d_model=32)


@pytest.mark.long
def test_a_step_alone_is_the_step_of_the_other_bench() -> None:
    e, threads = TINY.experiment(), torch.get_num_threads()
    batch = e.task.build().batch(4, seed=0, position=0)
    alone, ours = rank_step(e, batch, Exchange(), threads), our_step(e, batch)
    for _ in range(2):
        torch.testing.assert_close(alone(), ours())


@pytest.mark.slow
def test_ranks_and_their_peers_are_timed() -> None:
    rows = {str(row["contender"]): row for row in bench_ranks(0, TINY)}
    assert len(rows) == 5 and all(float(str(row["median_ms"])) > 0 for row in rows.values())
    assert rows["one process"]["times_one_process"] == 1
    assert float(str(rows["2 ranks"]["times_without_exchange"])) > 0
