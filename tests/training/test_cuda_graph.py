"""Graphs give what the eager loop gives. Everything but the refusal needs a GPU."""

from dataclasses import replace

import pytest
import torch

from sleep_lightning.config import load_experiment
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config, TaskBatch
from sleep_lightning.training.cuda_graph import GraphedGradients
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.runtime.environment import check_device
from tests.conftest import tiny_model

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda")


@pytest.mark.parametrize("override", ["training.cuda_graph=true", "training.fp32_matmul=tf32"])
def test_refused_on_cpu(override: str) -> None:
    with pytest.raises(ValueError, match=r"training\.\w+=.* needs a CUDA device.*drop it"):
        check_device(load_experiment(None, [override, "training.accelerator=cpu"]))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@needs_cuda
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    ("sleep", "options"),
    [
        (SleepConfig(6, 3), {}),
        (SleepConfig(6, 1), {}),
        (SleepConfig(6, 2), {"tbptt_windows": 1}),
        (SleepConfig(6, 2), {"policy": "pass"}),
        (SleepConfig(6, 3, grad_passes=1), {}),
        (SleepConfig(6, 2, pass_input="embed"), {"weight": 0.5}),
    ],
)
def test_a_graph_adds_the_gradients_of_the_eager_loop(
    sleep: SleepConfig, options: dict[str, object], bf16: bool
) -> None:
    model = tiny_model().to(CUDA)
    graphed = GraphedGradients(model)
    for step in range(3):  # fresh data each time, gradients added twice before they are zeroed
        first, second = (_batch(2 * step + i) for i in range(2))
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            model.zero_grad()
            expected_losses = [accumulate_gradients(model, b, sleep, **options) for b in (first, second)]  # type: ignore[arg-type]
            expected = gradients(model)
            model.zero_grad(set_to_none=False)
            losses = [graphed(b, sleep, **options) for b in (first, second)]
        torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients(model), expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():  # an optimiser's step: the graph must read the new weights
            for p in model.parameters():
                p.add_(torch.randn_like(p), alpha=0.01)


@needs_cuda
def test_another_plan_or_another_n_gets_a_graph_of_its_own() -> None:
    model, batch = tiny_model().to(CUDA), _batch(0)
    graphed, seen = GraphedGradients(model), []
    for sleep in (SleepConfig(6, 1), SleepConfig(6, 2), SleepConfig(6, 1)):
        model.zero_grad(set_to_none=False)
        loss = graphed(batch, sleep)
        model.zero_grad(set_to_none=False)
        torch.testing.assert_close(loss, accumulate_gradients(model, batch, sleep), rtol=1e-5, atol=1e-6)
        seen.append(float(loss))
    assert seen[0] == pytest.approx(seen[2])
    shorter = replace(batch, tokens=batch.tokens[:2], labels=batch.labels[:2], slices={})
    torch.testing.assert_close(
        graphed(shorter, SleepConfig(6, 1)),
        accumulate_gradients(model, shorter, SleepConfig(6, 1)),
        rtol=1e-5,
        atol=1e-6,
    )


@needs_cuda
def test_what_cannot_be_captured_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from sleep_lightning.training import cuda_graph

    def synchronizes(*args: object, **options: object) -> torch.Tensor:
        torch.zeros(1, device=CUDA).item()
        return torch.zeros((), device=CUDA)

    monkeypatch.setattr(cuda_graph, "accumulate_gradients", synchronizes)
    with pytest.raises(RuntimeError, match=r"training\.cuda_graph=true cannot be used here.*set it to false"):
        GraphedGradients(tiny_model().to(CUDA))(_batch(0), SleepConfig(6, 1))


def _batch(position: int) -> TaskBatch:
    batch = Rule110Config(ring_size=6, n_strings=3, steps=[1]).build().batch(4, seed=0, position=position)
    return batch.to(CUDA)
