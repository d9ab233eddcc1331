"""Fast paths train like the slow ones, and one compiled graph serves every window and pass.

Training and small badly conditioned models amplify rounding, so both are judged by a yardstick of their own: a
fast path may not be further from the definition than rounding alone takes the definition from itself.
"""

import pytest
import torch
from torch import Tensor

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import Checkpointing, SleepConfig
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.prediction import predict
from tests.conftest import tiny_batch, tiny_model


def curve(sleep: SleepConfig, backend: str, executor: str, perturbation: float = 0.0) -> list[float]:
    """Losses of 200 steps; ``perturbation`` is a relative one of the first weights."""
    torch.manual_seed(0)
    task = Rule110Config(ring_size=6, n_strings=2, steps=[0]).build()
    model = HybridLM(ModelConfig(d_model=32, n_heads=2, backend=backend), len(task.vocab))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + perturbation * torch.randn_like(p))
    optimizer = build_optimizer(model, TrainingConfig(muon_lr=5e-3, adamw_lr=1e-3))
    losses = []
    for position in range(200):
        optimizer.zero_grad()
        batch = task.batch(32, seed=0, position=position)
        losses.append(float(accumulate_gradients(model, batch, sleep, executor=executor)))  # type: ignore[arg-type]
        optimizer.step()
    return losses


def apart(a: list[float], b: list[float], steps: int) -> float:
    return max(abs(x - y) for x, y in zip(a[:steps], b[:steps], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("n_passes", "pass_input"), [(1, "hidden"), (2, "hidden"), (2, "embed")])
def test_two_hundred_steps_follow_the_definition(
    n_passes: int, pass_input: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain torch, token by token and window by window, against what ``auto`` takes.

    The first step amplifies rounding by its own nature (Adam divides by a gradient that may be all rounding), so the
    yardstick is what perturbations of the last bit do to the definition.
    """
    sleep = SleepConfig(6, n_passes, pass_input=pass_input)  # type: ignore[arg-type]
    fast = curve(sleep, "auto", "auto")
    monkeypatch.setenv(build.SWITCH, "0")
    slow = curve(sleep, "reference", "windows")
    nudged = [curve(sleep, "reference", "windows", perturbation=p) for p in (2e-7, 1.9e-7)]
    assert slow[-1] < 0.8 * slow[0]
    assert apart(slow, fast, 1) < 2e-6
    for steps in (3, 5, 10, 20):
        assert apart(slow, fast, steps) <= 5 * max(apart(slow, other, steps) for other in nudged)
    assert abs(sum(slow[-50:]) - sum(fast[-50:])) / 50 < 0.05


def gradients(model: HybridLM, dtype: torch.dtype = torch.float32, policy: Checkpointing = "none") -> list[Tensor]:
    """Summed over N = 2, 3 and 4."""
    batch = tiny_batch(ring=6, strings=4)
    model = model.to(dtype)
    for n_passes in (2, 3, 4):
        accumulate_gradients(model, batch, SleepConfig(6, n_passes), policy=policy)
    return [p.grad.double() for p in model.parameters() if p.grad is not None]


def worst(actual: list[Tensor], exact: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(actual, exact, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["none", "mlp"])
def test_one_graph_serves_all_windows_passes_and_n(policy: Checkpointing) -> None:
    import torch._dynamo

    def graphs() -> int:
        return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, batch = tiny_model(), tiny_batch(ring=6, strings=4)
    model.compile_passes()
    accumulate_gradients(model, batch, SleepConfig(6, 2), policy=policy)
    in_training = graphs()
    assert 2 <= in_training <= 3  # a full pass, a writing pass, the shorter answer
    model.zero_grad()
    compiled = gradients(model, policy=policy)
    assert graphs() == in_training
    exact = gradients(tiny_model(), torch.float64)
    assert worst(compiled, exact) <= 3 * worst(gradients(tiny_model()), exact) < 0.1
    predict(model, batch, SleepConfig(6, 2))
    with_evaluation = graphs()
    assert with_evaluation <= 2 * in_training
    accumulate_gradients(model, batch, SleepConfig(6, 3), policy=policy)
    predict(model, batch, SleepConfig(6, 5))
    assert graphs() == with_evaluation
