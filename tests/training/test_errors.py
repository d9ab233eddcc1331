import socket
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import distributed

from sleep_lightning.config import TrainingConfig
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training.callbacks.exception_checkpoint import SaveOnException
from sleep_lightning.training.errors import Diverged, check_loss, check_weights, remedy
from sleep_lightning.training.module import SleepModule
from tests.training.test_module import experiment, train


class Spoil(pl.Callback):
    """A weight becomes NaN after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        assert isinstance(pl_module, SleepModule)
        if trainer.global_step == self.step:
            with torch.no_grad():
                pl_module.model.head.weight[0, 0] = torch.nan


def spoiled(tmp_path: Path, step: int, *overrides: str) -> tuple[RunDirectory, str]:
    e = experiment("training.max_steps=20", "training.val_every=100", *overrides)
    run = RunDirectory(tmp_path)
    with pytest.raises(Diverged) as caught:
        train(e, run, Spoil(step), SaveOnException(run.checkpoints / "exception.ckpt"))
    return run, str(caught.value)


def test_a_loss_that_is_nan_ends_training_where_it_is_logged(tmp_path: Path) -> None:
    _, said = spoiled(tmp_path, 4, "training.log_every=3", "training.checkpoint_every=100")
    assert "the training loss is nan at step 6; try a lower training.muon_lr (now 0.02)" in said
    assert "\n" not in said


def test_the_learning_rate_of_another_optimizer_is_named_as_its() -> None:
    said = str(Diverged("the loss is nan", 3, TrainingConfig(optimizer="torch.optim.SGD")))
    assert "try a lower learning rate of training.optimizer, or" in said and "muon" not in said


def test_one_that_is_not_logged_is_seen_by_the_validation(tmp_path: Path) -> None:
    run, said = spoiled(tmp_path, 5, "training.log_every=1000", "training.val_every=5", "training.checkpoint_every=4")
    assert "the validation loss is nan at step 5" in said
    assert not run.best.exists()


def test_a_checkpoint_never_holds_weights_that_are_not_finite(tmp_path: Path) -> None:
    run, said = spoiled(tmp_path, 5, "training.log_every=1000", "training.checkpoint_every=2")
    assert "a weight is NaN or infinite at step 6" in said
    assert load_checkpoint(run.last)["global_step"] == 4
    assert all(x.isfinite().all() for x in load_checkpoint(run.last)["state_dict"].values())
    assert not (run.checkpoints / "exception.ckpt").exists()


def test_finite_figures_pass_and_what_to_try_depends_on_what_is_set() -> None:
    check_loss("training", 1e30, 1, TrainingConfig())
    check_weights(torch.nn.Linear(2, 2), 1, TrainingConfig())
    with pytest.raises(Diverged, match=r"is inf at step 7; .*, or training\.clip_norm=1 \(now 0\.0\)$"):
        check_loss("training", float("inf"), 7, TrainingConfig(clip_norm=0.0))


def test_memory_that_runs_out_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    for error in (caught.value, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()):
        sentence = remedy(error)
        assert sentence is not None and sentence.startswith("out of memory: ")
        assert "training.checkpointing=pass" in sentence and "\n" not in sentence
    assert remedy(RuntimeError("shape mismatch")) is None


def test_a_lost_rank_is_told_from_a_closed_pipe() -> None:
    text = "[/src/gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:4711"
    sentence = remedy(RuntimeError(text))
    assert sentence is not None and "does not answer (Connection closed by peer [127.0.0.1]:4711)" in sentence
    assert remedy(BrokenPipeError(32, "Broken pipe")) is None


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError) as caught:
            distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=2)
    sentence = remedy(caught.value)
    assert sentence == f"port {port} of rank zero is taken by another program; give all ranks a free MASTER_PORT"
