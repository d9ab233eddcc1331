import json
from pathlib import Path

import pytest
import torch

from sleep_lightning.config import Experiment
from sleep_lightning.cost.activation_memory import count_saved
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.model.parameter_groups import hidden_matrices
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.optimizer import build_optimizer
from tests.cli.cli import ROOT, run
from tests.training.test_module import experiment

WIDE = ("model.d_model=64", "model.d_ff=128", "training.batch_size=32", "task.ring_size=12", "task.n_strings=4")

PARTS, ADAM = "training.accumulate=4", "training.optimizer={class_path: torch.optim.AdamW, init_args: {lr: 0.01}}"


def wide(*overrides: str) -> Experiment:
    return experiment(*WIDE, "sleep.window_size=12", "training.executor=windows", *overrides)


def predicted(*overrides: str) -> int:
    e = wide(*overrides)
    nbytes = predict_step_memory(e, SleepModule(e).model)
    assert nbytes is not None
    return nbytes


def held(e: Experiment) -> int:
    """Bytes of weights, gradients, optimizer and of what autograd kept, after one step."""
    module = SleepModule(e)
    model, t = module.model, e.training
    optimizer = build_optimizer(model, t)
    batch = module.task.batch(t.batch_size // t.accumulate, seed=0, position=0)
    with count_saved(model) as saved, torch.autocast("cpu", torch.bfloat16, enabled=t.precision == "bf16"):
        accumulate_gradients(model, batch, e.sleep, executor=t.executor)
    optimizer.step()
    own = [optimizer.muon, optimizer.adamw] if t.uses_muon else [optimizer]
    states = [x for one in own for s in one.state.values() for x in s.values()]
    weights = [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return saved.nbytes + sum(x.nbytes for x in (*weights, *states))


@pytest.mark.long
@pytest.mark.parametrize("override", ["sleep.n_passes=1", "sleep.n_passes=3", "training.precision=bf16", ADAM, PARTS])
def test_a_step_holds_what_was_predicted(override: str) -> None:
    """The prediction also has the gradients in flight during the backward, which are gone afterwards."""
    e = wide(override)
    assert held(e) < predicted(override) < 1.35 * held(e)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "override"),
    [
        ("rule110", "model.d_model=16"),
        ("rule110", "model.d_model=64"),
        ("rule110", "training.allocator=return"),
        ("articles", "sleep.n_passes=2"),
    ],
)
def test_a_small_process_grows_as_predicted(tmp_path: Path, config: str, override: str) -> None:
    done = run(
        tmp_path,
        *("fit", f"--config={ROOT / 'conf' / config}.yaml", "training.max_steps=4", "training.val_every=4"),
        *("training.threads=1", "training.val_batches=1", "tracking.enabled=false", "training.run_dir=run", override),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    expected = summary["predicted"]["step_process_bytes"]
    assert summary["measured"]["step_memory_bytes"] == pytest.approx(expected, rel=0.1)


def test_what_makes_it_larger_and_smaller() -> None:
    plain = predicted("sleep.n_passes=2")
    assert predicted("sleep.n_passes=4") > 1.5 * plain
    assert predicted("training.sampled_passes=[1,4]") == predicted("sleep.n_passes=4")
    assert predicted("training.checkpointing=pass") < plain / 2
    assert plain / 2 < predicted("training.checkpointing=mlp") < 0.85 * plain
    assert predicted("training.precision=bf16") < plain


def test_shards_make_it_smaller() -> None:
    copies = predicted("training.devices=4")
    kept, dropped = (
        predicted("training.devices=4", "training.sharding=full", f"training.reshard_after_forward={drops}")
        for drops in ("false", "true")
    )
    model = SleepModule(wide()).model
    blocks = [sum(p.numel() for p in block.parameters()) for block in model.stack]
    assert copies > kept and kept - dropped == 4 * (sum(blocks) - max(blocks))
    checkpointed = ("training.devices=4", "training.sharding=full", "training.checkpointing=pass")
    assert predicted(*checkpointed) == predicted(*checkpointed, "training.reshard_after_forward=true")


def test_a_compiled_pass_is_not_predicted() -> None:
    e = experiment("training.compile=true")
    assert predict_step_memory(e, SleepModule(e).model) is None


def test_a_rank_keeps_activations_of_its_share_only() -> None:
    model = SleepModule(wide()).model
    weights, muon = sum(p.numel() for p in model.parameters()), sum(p.numel() for p, _ in hidden_matrices(model))
    resting = 4 * (2 * weights + muon + 2 * (weights - muon))
    assert predicted("training.devices=2") - resting == pytest.approx((predicted() - resting) / 2, rel=0.05)
