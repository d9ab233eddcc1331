"""The contract of a window model: of the hybrid, and of a user's own model through sleep, cost and training."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sleep_lightning.config import Experiment, TrainingConfig
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.cost.inference import inference_cost, state_bytes
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.model import HybridLM, ModelConfig, WindowModel, why_not_window_model
from sleep_lightning.model.parameter_groups import set_trained, trained_parameters
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config, Task
from sleep_lightning.testing.model import WindowModelTestCase
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer
from tests.conftest import tiny_batch, tiny_model
from tests.model.own_model import OwnModel, own_model
from tests.model.styles import STYLES


class TestHybrid(WindowModelTestCase):
    def model(self) -> HybridLM:
        return tiny_model()


class TestHybridOfAllRules(WindowModelTestCase):
    def model(self) -> HybridLM:
        return tiny_model(pattern="GAHDJA")


class TestAttentionAlone(WindowModelTestCase):
    def model(self) -> HybridLM:
        return tiny_model(pattern="AA")


class TestQwenStyle(WindowModelTestCase):
    def model(self) -> HybridLM:
        return tiny_model(**STYLES["qwen3_5"])


class TestJetStyle(WindowModelTestCase):
    def model(self) -> HybridLM:
        return tiny_model(**STYLES["jet"])


class TestOuroStyle(WindowModelTestCase):
    def model(self) -> HybridLM:
        return tiny_model(**STYLES["ouro"])


class TestLlamaStyle(WindowModelTestCase):
    def model(self) -> HybridLM:
        return tiny_model(**STYLES["llama"])


class TestOwnModel(WindowModelTestCase):
    def model(self) -> OwnModel:
        return own_model()


def test_what_a_model_lacks_is_said() -> None:
    assert why_not_window_model(own_model()) is None
    reason = str(why_not_window_model(nn.Linear(2, 2)))
    assert reason.startswith("Linear has no n_blocks, vocab_size, embed")

    class Unfinished(nn.Module, WindowModel):
        pass

    with pytest.raises(TypeError, match="abstract method"):
        Unfinished()


@dataclass
class OwnExperiment(Experiment):
    """As if the configuration named the model."""

    def build_model(self, task: Task | None = None) -> OwnModel:  # type: ignore[override]
        return OwnModel(len((task or self.task.build()).vocab))


def own_experiment(n_passes: int = 2, **training: object) -> OwnExperiment:
    task = Rule110Config(ring_size=6, n_strings=3, steps=[1])
    config = TrainingConfig(batch_size=4, **training)  # type: ignore[arg-type]
    # the outlines of cost are cached by the model's configuration: one of its own
    return OwnExperiment(task, ModelConfig(d_model=2, n_heads=1, d_ff=7), SleepConfig(6, n_passes), config)


@pytest.mark.parametrize("training", [{}, {"tbptt_windows": 2}, {"checkpointing": "pass"}])
@pytest.mark.parametrize("sleep", [{}, {"n_passes": 3, "grad_passes": 1}, {"n_passes": 2, "loop": "1/1/1"}])
def test_the_flops_of_an_own_model_are_the_dispatched_ones(
    training: dict[str, object], sleep: dict[str, object]
) -> None:
    """Exactly in the forward; in the backward the first window has no memory to differentiate, nor the last one a use
    for the gradient of what it writes, and the count of a single pass has both."""
    e = own_experiment(**training)
    e.sleep = SleepConfig(6, **sleep)  # type: ignore[arg-type]

    def dispatched(backward: Callable[[Tensor], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            t, batch = e.training, tiny_batch(rows=4)
            options = {"tbptt_windows": t.tbptt_windows, "policy": t.checkpointing, "backward": backward}
            accumulate_gradients(own_model(), batch, e.sleep, **options)  # type: ignore[arg-type]
        return counter.get_total_flops()

    cost = sequence_cost(e)
    assert dispatched(lambda loss: None) == 4 * cost.forward.total()
    assert 0.9 * 4 * cost.total < dispatched(Tensor.backward) <= 4 * cost.total


def test_an_own_model_has_all_costs() -> None:
    e, model = own_experiment(), own_model()
    assert inference_cost(e).sleep_flops_per_window > 1.5 * inference_cost(own_experiment(1)).sleep_flops_per_window
    assert state_bytes(e) == {"fast weights": model.zero_memory(1).nbytes}
    assert StepFlops(e, model)(e.sleep) > 4 * sequence_cost(e).total
    predicted = predict_step_memory(e, model)
    assert predicted is not None and predicted > 4 * sum(p.numel() for p in model.parameters())


@pytest.mark.long
def test_an_own_model_learns() -> None:
    model, batch = own_model(), tiny_batch(rows=32, steps=0)
    optimizer = build_optimizer(model, TrainingConfig(muon_lr=1e-2, adamw_lr=1e-2))  # type: ignore[arg-type]
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(float(accumulate_gradients(model, batch, SleepConfig(6, 2))))
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_what_only_the_hybrid_can_is_refused() -> None:
    model, batch = own_model(), tiny_batch()
    with pytest.raises(ValueError, match=r"training\.checkpointing=mlp .*OwnModel\.blocks"):
        accumulate_gradients(model, batch, SleepConfig(6), policy="mlp")
    with pytest.raises(ValueError, match=r"sleep\.loop_norm=true .*OwnModel"):
        accumulate_gradients(model, batch, SleepConfig(6, 2, loop_norm=True))
    with pytest.raises(ValueError, match=r"train=memory .*OwnModel"):
        trained_parameters(model, "memory")
    set_trained(model, trained_parameters(model, "all"))
    assert all(p.requires_grad for p in model.parameters())
    assert torch.isfinite(accumulate_gradients(model, batch, SleepConfig(6, 2, retrieved_windows=1)))
