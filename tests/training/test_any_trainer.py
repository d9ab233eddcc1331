"""``SleepModule`` in Trainers that users build: own data, callbacks, loggers and devices."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

from sleep_lightning import SleepModule, TaskDataModule, load_experiment
from sleep_lightning.runs.signals import StopReason
from sleep_lightning.training.callbacks.preemption import Preemption
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from tests.cli.cli import ROOT, SMALL, environment

SCRIPT = Path(__file__).with_name("user_script.py")
CALM = ["training.muon_lr=1e-3", "training.adamw_lr=1e-3"]
"""Learning rates that do not blow rounding up."""
OVERRIDES = [*SMALL, "training.max_steps=4", "training.val_batches=1"]


def run_script(folder: Path, devices: int, strategy: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), str(devices), strategy, *overrides]
    return subprocess.run(command, env=environment(), cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script with one device and with two."""
    made = {}
    for devices, strategy in ((1, "auto"), (2, "sleep_ddp")):
        made[strategy] = tmp_path_factory.mktemp(strategy)
        done = run_script(made[strategy], devices, strategy, *CALM)
        assert done.returncode == 0, done.stderr
    return made


def found(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"found{rank}.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_users_script_trains_tests_predicts_and_loads(folders: dict[str, Path]) -> None:
    alone = found(folders["auto"])
    assert len(alone["losses"]) == 12 and alone["losses"][-1] < alone["losses"][0]
    assert {"test/exact_match", "test/loss", "test/majority_exact_match"} <= alone["test"].keys()
    answers = torch.tensor(alone["answers"])
    assert answers.shape == (32, 14)
    assert (answers[:, :-2] == -100).all() and (answers[:, -2:] >= 0).all()
    assert alone["loaded"] == 2 and alone["best"] == pytest.approx(alone["test"]["test/loss"], rel=0.5)


@pytest.mark.slow
def test_two_devices_share_each_batch_and_one_rank_writes(folders: dict[str, Path]) -> None:
    alone, ranks = found(folders["auto"]), [found(folders["sleep_ddp"], rank) for rank in range(2)]
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    assert [rank["writes"] for rank in ranks] == [12, 0]
    for rank in ranks:
        assert rank["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        assert rank["test"]["test/loss"] == pytest.approx(alone["test"]["test/loss"], rel=1e-2)
    assert ranks[0]["weights"] == ranks[1]["weights"]


@pytest.mark.slow
def test_loggers_of_lightnings_get_every_metric(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        assert len(list((folder / "tensorboard").rglob("events.out.*"))) >= 1
        [metrics] = (folder / "csv").rglob("metrics.csv")
        rows = list(csv.DictReader(metrics.open()))
        names = {name for row in rows for name, value in row.items() if value}
        assert {"train/loss", "train/grad_norm", "train/muon_lr", "val/exact_match", "cost/train_flops"} <= names
        assert any(name.startswith("lr-") for name in names), "LearningRateMonitor"
        steps = sorted(int(row["step"]) for row in rows if row["train/loss"])
        assert steps == list(range(1, 13))


@pytest.mark.slow
def test_plain_ddp_is_refused_by_all_ranks(tmp_path: Path) -> None:
    done = run_script(tmp_path, 2, "ddp")
    assert done.returncode != 0
    assert 'use strategy="sleep_ddp", or "sleep_fsdp"' in done.stderr
    assert not list(tmp_path.glob("found*"))


def trainer(**kwargs: Any) -> L.Trainer:
    settings = {"max_steps": 4, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "val_check_interval": 2}
    return L.Trainer(**(settings | {"check_val_every_n_epoch": None} | kwargs))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val=0\.5\).*set training\.clip_norm=0\.5 \(now 1\.0\)"),
        ({"accumulate_grad_batches": 2}, r"accumulate_grad_batches=2\).*set training\.accumulate=2"),
        ({"precision": "bf16-true"}, r'precision="bf16-true"\): .*use precision="bf16-mixed"'),
        (
            {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]},
            r'precision="16-mixed"\): gradients are clipped .*; use precision="bf16-mixed"',
        ),
        ({"max_steps": -1, "max_epochs": 1}, r"max_epochs=1\): .*have no end, and so no epoch; use max_steps=4"),
    ],
)
def test_what_it_does_itself_is_refused_in_one_sentence(kwargs: dict[str, Any], message: str) -> None:
    e = load_experiment(None, OVERRIDES)
    with pytest.raises(ValueError, match=message):
        trainer(**kwargs).fit(SleepModule(e), datamodule=TaskDataModule(e))


def test_a_length_that_the_learning_rate_does_not_follow_is_said() -> None:
    e = load_experiment(None, OVERRIDES)
    with pytest.warns(UserWarning, match=r"max_steps=2\): the learning rate follows training\.max_steps=4"):
        trainer(max_steps=2, limit_val_batches=0, val_check_interval=None).fit(
            SleepModule(e), datamodule=TaskDataModule(e)
        )


def test_the_callbacks_it_needs_are_added_once() -> None:
    e = load_experiment(None, OVERRIDES)
    own = ResourceMonitor()
    for callbacks in ([], [own]):
        t = trainer(callbacks=callbacks)
        t.fit(SleepModule(e), datamodule=TaskDataModule(e))
        [monitor] = [callback for callback in t.callbacks if isinstance(callback, ResourceMonitor)]  # type: ignore[attr-defined]
        assert (monitor is own) == bool(callbacks)
        assert monitor.train_flops == monitor.predicted_run_flops() > 0


def test_a_module_that_was_stopped_trains_again(tmp_path: Path) -> None:
    e = load_experiment(None, OVERRIDES)
    module = SleepModule(e)

    class Stopping(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.global_step == 1:
                signal.raise_signal(signal.SIGTERM)

    own = Preemption()
    first = trainer(callbacks=[own, Stopping()], default_root_dir=tmp_path)
    first.fit(module, datamodule=TaskDataModule(e))
    assert first.global_step == 2 and own.reason == StopReason.SIGTERM and (tmp_path / "last.ckpt").exists()
    second = trainer(callbacks=[own])
    second.fit(module, datamodule=TaskDataModule(e))
    assert second.global_step == 4 and own.reason is None


def test_what_an_interrupted_validation_answered_is_forgotten() -> None:
    e = load_experiment(None, OVERRIDES)
    module, data = SleepModule(e), TaskDataModule(e)

    class Interrupting(L.Callback):
        def on_validation_batch_end(self, *args: Any) -> None:
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(callbacks=[Interrupting()]).validate(module, datamodule=data, verbose=False)
    trainer().validate(module, datamodule=data, verbose=False)
    interrupted = module.scores["all"].answers
    whole = SleepModule(e)
    trainer().validate(whole, datamodule=data, verbose=False)
    assert interrupted == whole.scores["all"].answers


def test_speed_is_that_of_the_loaders_batches() -> None:
    e = load_experiment(None, OVERRIDES)
    batches = [e.task.build().batch(4 * e.training.batch_size, seed=0, position=i) for i in range(4)]
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type,var-annotated]
    monitor = ResourceMonitor()
    trainer(callbacks=[monitor], val_check_interval=None).fit(SleepModule(e), train_dataloaders=loader)
    tokens = sum(batch.tokens.numel() for batch in batches)
    assert monitor.cost_so_far()["cost/tokens"] == tokens
    assert monitor.measured()["tokens_per_s"] == pytest.approx(tokens / monitor.usage.train_s)


def test_batches_may_be_pairs_and_others_are_refused() -> None:
    e = load_experiment(None, OVERRIDES)
    module, batch = SleepModule(e), e.task.build().batch(4, seed=0, position=0)
    assert torch.equal(module((batch.tokens, batch.labels)), module(batch))
    with pytest.raises(ValueError, match="a batch is a dict; SleepModule takes a TaskBatch"):
        module({"input_ids": batch.tokens})


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    e = load_experiment(None, [*OVERRIDES, "training.accumulate=4"])
    loader = DataLoader([e.task.build().batch(6, seed=0, position=0)], batch_size=None)  # type: ignore[arg-type,var-annotated]
    with pytest.raises(ValueError, match=r"a batch of 6 rows does not divide into training\.accumulate=4"):
        trainer(max_steps=1).fit(SleepModule(e), train_dataloaders=loader)


def test_a_checkpoint_is_loaded_with_its_experiment(tmp_path: Path) -> None:
    e = load_experiment(ROOT / "conf" / "rule110.yaml", [*OVERRIDES, "sleep.n_passes=3"])
    t, module = trainer(), SleepModule(e)
    t.fit(module, datamodule=TaskDataModule(e))
    t.save_checkpoint(tmp_path / "x.ckpt")
    again = SleepModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert again.experiment.sleep.n_passes == 3
    mine = module.state_dict()
    assert all(torch.equal(x, mine[name]) for name, x in again.state_dict().items())
