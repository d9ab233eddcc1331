import pytest
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model.parameter_groups import hidden_matrices
from sleep_lightning.training.optimizer import Muon, MuonAdamW, build_optimizer, orthogonalize, rate_name
from sleep_lightning.training.schedule import build_schedule, warmup_stable_decay
from tests.conftest import tiny_model


def test_is_torch_muon_on_separate_matrices() -> None:
    """Batched by shape and split by rows, the same steps as torch.optim.Muon on the matrices one by one."""
    shapes = [(24, 16), (16, 16), (16, 40), (24, 16)]
    separate = [nn.Parameter(torch.randn(s)) for s in shapes]
    fused = nn.Parameter(torch.cat([separate[0], separate[1], separate[3]]).detach().clone())
    single = nn.Parameter(separate[2].detach().clone())
    theirs = torch.optim.Muon(separate, lr=0.02, weight_decay=0.1, momentum=0.95)
    ours = Muon([(fused, (24, 16, 24)), (single, (16,))], lr=0.02, weight_decay=0.1, momentum=0.95)
    for _ in range(3):
        for p in separate:
            p.grad = torch.randn_like(p)
        fused.grad = torch.cat([separate[0].grad, separate[1].grad, separate[3].grad])  # type: ignore[list-item]
        single.grad = separate[2].grad
        theirs.step()
        ours.step()
    expected = torch.cat([separate[0], separate[1], separate[3]])
    torch.testing.assert_close(fused, expected, rtol=0, atol=2e-3)  # orthogonalised in bf16 on both sides
    torch.testing.assert_close(single, separate[2], rtol=0, atol=2e-3)
    assert (fused - expected).norm() < 0.01 * expected.norm()


def test_orthogonalized_singular_values_are_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 32, 12)).float())
    assert 0.6 < values.min()
    assert values.max() < 1.3


def test_every_parameter_is_optimised_once_and_gates_do_not_decay() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingConfig())
    optimised = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised)) == len(list(model.parameters()))
    assert {p for p, _ in hidden_matrices(model)} == {
        p for n, p in model.named_parameters() if n.endswith(("in_proj.weight", "out_proj.weight"))
    }
    decayed = {p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, p in model.named_parameters():
        matrix = name.endswith(("in_proj.weight", "out_proj.weight"))
        assert (p in decayed) == (matrix or name.startswith(("embedding", "head"))), name


def test_state_round_trip_continues_to_the_bit() -> None:
    def run(steps: int, restore_at: int | None) -> list[torch.Tensor]:
        model = tiny_model()
        optimizer = build_optimizer(model, TrainingConfig())
        for step in range(steps):
            if step == restore_at:
                saved = optimizer.state_dict()
                optimizer = build_optimizer(model, TrainingConfig())
                optimizer.load_state_dict(saved)
            generator = torch.Generator().manual_seed(step)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    for a, b in zip(run(6, None), run(6, 3), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_by_class_path_gets_the_parameters() -> None:
    model = tiny_model()
    config = TrainingConfig(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}})
    optimizer = build_optimizer(model, config)
    assert type(optimizer) is torch.optim.SGD and optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    assert isinstance(build_optimizer(model, TrainingConfig()), MuonAdamW)
    with pytest.raises(ValueError, match=r"^training\.optimizer\.class_path='torch\.optim\.SGD': .*-1"):
        build_optimizer(model, TrainingConfig(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": -1}}))


def with_vectors(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.ndim == 1], rate)


def scaled_by_steps(optimizer: torch.optim.Optimizer, config: TrainingConfig) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: step / config.max_steps)


def test_functions_get_the_model_and_the_training_config_where_they_ask_for_them() -> None:
    here, model = __name__, tiny_model()
    spec = {"class_path": f"{here}.with_vectors", "init_args": {"rate": 2.0}}
    config = TrainingConfig(optimizer=spec, schedule=f"{here}.scaled_by_steps", max_steps=10)
    optimizer = build_optimizer(model, config)
    assert all(p.ndim == 1 for p in optimizer.param_groups[0]["params"])
    schedule = build_schedule(optimizer, config)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == [1.0]


def test_a_learning_rate_is_logged_under_the_name_of_its_optimizer() -> None:
    model = tiny_model()
    assert rate_name(build_optimizer(model, TrainingConfig())) == "muon_lr"
    sgd = build_optimizer(model, TrainingConfig(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}))
    assert rate_name(sgd) == rate_name(LightningOptimizer(sgd)) == "sgd_lr"


def test_torch_schedules_take_the_optimizer_first() -> None:
    spec = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 10}}
    config = TrainingConfig(schedule=spec)
    optimizer = build_optimizer(tiny_model(), config)
    schedule = build_schedule(optimizer, config)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.0] * 3)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (59, 1.0), (60, 1.0), (80, 0.5), (99, 0.025), (100, 0.0)]
)
def test_warmup_stable_decay(step: int, factor: float) -> None:
    config = TrainingConfig(max_steps=100, warmup=0.1, cooldown=0.4)
    assert warmup_stable_decay(step, config) == pytest.approx(factor)
