"""Fast paths train like the slow ones: a curve of 200 steps, and one compiled graph for every window and pass."""

import pytest
import torch

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.training.optim import build_optimizer
from sleep_lightning.training.tbptt import accumulate_gradients, predict
from tests.conftest import tiny_batch, tiny_model


def curve(sleep: SleepConfig, steps: int, backend: str, executor: str) -> list[float]:
    torch.manual_seed(0)
    task = Rule110Config(ring_size=6, n_strings=2, steps=[0]).build()
    model = HybridLM(ModelConfig(d_model=32, n_heads=2, backend=backend), len(task.vocab))
    optimizer = build_optimizer(model, TrainingConfig(muon_lr=5e-3, adamw_lr=1e-3))
    losses = []
    for position in range(steps):
        optimizer.zero_grad()
        batch = task.batch(32, seed=0, position=position)
        losses.append(float(accumulate_gradients(model, batch, sleep, executor=executor)))  # type: ignore[arg-type]
        optimizer.step()
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(
    "sleep", [SleepConfig(6, 1), SleepConfig(6, 2), SleepConfig(6, 2, pass_input="embed")], ids=str
)
def test_two_hundred_steps_follow_the_definition(sleep: SleepConfig) -> None:
    """Token by token and window by window, against what ``auto`` takes. Rounding is amplified by training, slowly."""
    slow, fast = curve(sleep, 200, "reference", "windows"), curve(sleep, 200, "auto", "auto")
    assert slow[-1] < 0.8 * slow[0]
    for a, b in zip(slow[:20], fast[:20], strict=True):
        assert abs(a - b) < 1e-3
    assert abs(sum(slow[-50:]) - sum(fast[-50:])) / 50 < 0.05


@pytest.mark.slow
def test_one_graph_serves_all_windows_passes_and_n() -> None:
    import torch._dynamo

    torch._dynamo.reset()
    model, batch = tiny_model(), tiny_batch(ring=6, strings=4)
    eager = tiny_model()
    model.compile_passes()
    counts = []
    for n_passes in (2, 3, 4):
        sleep = SleepConfig(6, n_passes)
        loss = accumulate_gradients(model, batch, sleep)
        torch.testing.assert_close(loss, accumulate_gradients(eager, batch, sleep), rtol=1e-5, atol=1e-5)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    for a, b in zip(model.parameters(), eager.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() <= 1e-4 * b.grad.norm() + 1e-6
    assert counts[0] == counts[-1] <= 3, counts  # a full pass, a writing pass, the shorter answer
    predict(model, batch, SleepConfig(6, 2))
    trained = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    accumulate_gradients(model, batch, SleepConfig(6, 2))
    predict(model, batch, SleepConfig(6, 5))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == trained <= 6
