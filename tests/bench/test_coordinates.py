"""The coordinate check measures what it says."""

import pytest
import torch

from sleep_lightning.bench.coordinates import BASE_PASSES, BASE_WIDTH, bench_coordinates, rms, run


def test_rms() -> None:
    assert rms(torch.tensor([3.0, -4.0])) == pytest.approx((12.5) ** 0.5)


@pytest.mark.long
def test_larger_embeddings_are_seen_in_the_hidden_states() -> None:
    """And nothing moves at a learning rate of 0."""
    still = ("training.muon_lr=0", "training.adamw_lr=0")
    (small, after), (large, _) = (run(32, 1, f"model.embedding_std={std}", *still) for std in (0.1, 10))
    assert rms(large.hidden) > 5 * rms(small.hidden)
    assert torch.equal(small.hidden, after.hidden) and torch.equal(small.memory, after.memory)


@pytest.mark.slow
def test_a_row_for_every_width_and_n() -> None:
    rows = list(bench_coordinates(1.0))
    assert len({(row["what"], row["d_model"], row["N"]) for row in rows}) == len(rows) == 12
    base = [row for row in rows if (row["d_model"], row["N"]) == (BASE_WIDTH, BASE_PASSES)]
    assert len(base) == 3 and base[0]["hidden"] == base[1]["hidden"] != base[2]["hidden"]
    assert all(float(str(row[key])) > 0 for row in rows for key in ("hidden_update", "memory_update", "logits_update"))
