"""A few steps under the real trainer for every option of training, and what an exception leaves behind."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training.callbacks.exception_checkpoint import SaveOnException
from sleep_lightning.training.checkpoint_io import AtomicCheckpointIO
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.step_gradients import StepGradients
from sleep_lightning.training.trainer import build_trainer, quiet_lightning
from tests.cli.cli import ROOT, SMALL


def experiment(*overrides: str) -> Experiment:
    return load_experiment(ROOT / "conf" / "rule110.yaml", [*SMALL, "training.max_steps=3", *overrides])


def train(e: Experiment, run: RunDirectory | None = None, *callbacks: pl.Callback) -> SleepModule:
    quiet_lightning()
    torch.manual_seed(0)
    module = SleepModule(e)
    build_trainer(e, run, callbacks=callbacks).fit(module, datamodule=TaskDataModule(e))
    return module


@pytest.mark.parametrize(
    "override",
    [
        "training.precision=bf16",
        "training.checkpointing=mlp",
        "training.checkpointing=pass",
        "training.checkpointing=window",
        "training.accumulate=4",
        "training.executor=windows",
        "training.clip_norm=0",
        "sleep.grad_passes=1",
        "sleep.pass_input=embed",
        "sleep.pass_input=inject",
        "sleep.loop_norm=true",
        "sleep.reset_memory_between_passes=true",
        "sleep.carry_conv_state=true",
        "model.conv_size=0",
        "model.expand_v=2",
        "model.tie_embeddings=false",
        "model.allow_neg_eigval=true",
        "task.steps=[0,1,2]",
        "sleep.eviction=sliding",
        "sleep.loop=1/2/1",
        "sleep.wake_passes=2",
        "sleep.retrieved_windows=1",
        "model.summary_tokens=2",
        "training.sampled_passes=[1,3]",
        "training.stages=[{steps: 2, train: memory, eviction: sliding}]",
        "sleep.window_size=20",
    ],
)
def test_every_option_trains(override: str) -> None:
    extra = ["sleep.n_passes=1"] if override == "sleep.window_size=20" else []
    before = SleepModule(experiment(override, *extra)).model.state_dict()
    module = train(experiment(override, *extra))
    assert module.steps == 3
    assert all(torch.isfinite(x).all() for x in module.model.state_dict().values())
    assert before.keys() == module.model.state_dict().keys()


def test_what_a_stage_freezes_stays_where_gradients_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph adds to the tensors it was captured with, so that they are zeroed and not dropped."""
    monkeypatch.setattr(StepGradients, "keeps_gradients", True)
    e = experiment("training.stages=[{steps: 2, train: all}]", "training.train=memory")
    first, found = dict[str, torch.Tensor](), dict[str, bool]()

    class Watching(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
            for name, p in module.named_parameters():
                if trainer.global_step == 2:
                    first[name] = p.detach().clone()
                elif trainer.global_step == 3:
                    found[name] = torch.equal(first[name], p)

    module = train(e, None, Watching())
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert 0 < len(frozen) < len(found)
    assert all(found[name] == (name in frozen) for name in found)


def test_accumulation_and_bf16_stay_close_to_the_plain_run() -> None:
    plain = torch.cat([p.flatten() for p in train(experiment()).parameters()])
    for override, tolerance in (("training.accumulate=4", 1e-2), ("training.precision=bf16", 5e-2)):
        other = torch.cat([p.flatten() for p in train(experiment(override)).parameters()])
        assert (other - plain).norm() < tolerance * plain.norm(), override


class Fail(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 2:
            raise RuntimeError("as planned")


def test_an_exception_leaves_a_checkpoint_that_loads_without_pickle(tmp_path: Path) -> None:
    e = experiment(f"training.run_dir={tmp_path}/run")
    run, _lock = RunDirectory.create(e)
    run.record_experiment(e)
    path = run.checkpoints / "exception.ckpt"
    with pytest.raises(RuntimeError, match="as planned"):
        train(e, run, Fail(), SaveOnException(path))
    assert load_checkpoint(path)["global_step"] == 2


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)

    def disk_full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
