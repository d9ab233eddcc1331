import pytest
import torch

from sleep_lightning.sleep import SleepConfig
from sleep_lightning.training.callbacks.pass_diagnostics import diagnose_passes
from tests.conftest import tiny_batch, tiny_model


def test_every_pass_is_described_and_gradients_are_left_alone() -> None:
    model = tiny_model()
    found = diagnose_passes(model, tiny_batch(), SleepConfig(6, 3))
    assert set(found) == {
        *(f"memory_change/pass_{n}" for n in (1, 2, 3)),
        *(f"memory_grad_norm/pass_{n}" for n in (1, 2, 3)),
        *(f"hidden_drift/pass_{n}" for n in (1, 2)),
    }
    assert all(value > 0 for value in found.values())
    assert all(p.grad is None for p in model.parameters())


def test_works_inside_no_grad_and_without_memory() -> None:
    with torch.no_grad():
        assert diagnose_passes(tiny_model(), tiny_batch(), SleepConfig(6, 1))["memory_grad_norm/pass_1"] > 0
        assert diagnose_passes(tiny_model(pattern="A"), tiny_batch(), SleepConfig(6, 1)) == {}


def test_activations_may_be_computed_again() -> None:
    model, batch, sleep = tiny_model(), tiny_batch(), SleepConfig(6, 3)
    expected = diagnose_passes(model, batch, sleep)
    for policy in ("mlp", "pass"):
        assert diagnose_passes(model, batch, sleep, policy) == pytest.approx(expected, rel=1e-5)  # type: ignore[arg-type]
