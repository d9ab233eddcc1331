"""A pretrained model under ``fit``, ``test`` and in one's own Trainer; what stays frozen, by hashes."""

from hashlib import sha256
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.pretrained import load_pretrained
from sleep_lightning.pretrained.loading import base_blocks
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.module import SleepModule
from tests.pretrained.snapshots import write

SHORT = [
    "task.ring_size=8",
    "task.n_strings=2",
    "task.steps=[1]",
    "sleep.window_size=8",
    "sleep.n_passes=2",
    "training.batch_size=4",
    "training.max_steps=3",
    "training.val_every=3",
    "training.val_batches=2",
    "training.accelerator=cpu",
    "tracking.enabled=false",
]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write("llama", folder)
    return folder


def hashes(model: nn.Module) -> dict[str, str]:
    return {name: sha256(p.detach().numpy().tobytes()).hexdigest() for name, p in model.named_parameters()}


def arguments(snapshot: Path, *more: str) -> list[str]:
    return [*SHORT, f"model.pretrained={snapshot}", "model.insert={every: 2, heads: 2}", *more]


def test_training_the_memory_alone_changes_inserted_blocks_only(snapshot: Path, tmp_path: Path) -> None:
    before = hashes(load_pretrained(snapshot, {"every": 2, "heads": 2}))
    more = ("training.stages=[{steps: 3, train: memory}]", f"training.run_dir={tmp_path / 'run'}")
    assert main(["fit", *arguments(snapshot, *more)]) == 0
    module = SleepModule.load_from_checkpoint(tmp_path / "run")
    base = {f"layers.{i}." for i in base_blocks(module.experiment.model)}  # type: ignore[arg-type]
    for name, value in hashes(module.model).items():  # type: ignore[arg-type]
        if not name.startswith("layers.") or any(name.startswith(block) for block in base):
            assert value == before[name], name
    changed = [name for name, value in hashes(module.model).items() if value != before.get(name)]  # type: ignore[arg-type]
    assert any("out_proj" in name for name in changed)


def test_a_run_resumes_and_is_tested_without_the_directory(snapshot: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.symlink_to(snapshot)
    run = arguments(folder, f"training.run_dir={tmp_path / 'run'}", "training.checkpoint_every=2")
    assert main(["fit", *run]) == 0
    folder.unlink()
    assert main(["test", "--checkpoint", str(tmp_path / "run")]) == 0


def test_weights_come_first_in_ones_own_trainer(snapshot: Path) -> None:
    experiment = load_experiment(None, arguments(snapshot))
    module = SleepModule(experiment)
    expected = load_pretrained(snapshot, {"every": 2, "heads": 2})
    seen = []

    class Look(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append([p.detach().clone() for p in pl_module.model.get_submodule("layers.0").parameters()])  # type: ignore[union-attr, operator]

    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        callbacks=[Look()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, TaskDataModule(experiment))
    assert all(torch.equal(a, b) for a, b in zip(seen[0], expected.layers[0].parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.d_model=64", "model.d_model=64 is decided by model.pretrained="),
        ("model.pretrained=/nowhere", "model.pretrained=/nowhere is no directory; name one with config.json"),
        ("model.insert={every: 40}", "model.insert.every=40 inserts nothing"),
        ("model.insert=4", "model.insert=4 must be a mapping"),
    ],
)
def test_wrong_keys_are_one_sentence(
    change: str, message: str, snapshot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *arguments(snapshot, change)]) == 2
    output = capsys.readouterr()
    assert message in " ".join((output.out + output.err).split()) and "Traceback" not in output.err


def test_an_insertion_needs_a_pretrained_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *SHORT, "model.insert={every: 2}"]) == 2
    assert "needs model.pretrained" in " ".join(capsys.readouterr().err.split())


def test_a_run_is_exported_and_loaded_again(snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(tmp_path / "run"), str(tmp_path / "tuned")
    assert main(["fit", *arguments(snapshot, f"training.run_dir={run}")]) == 0
    assert main(["export", "--checkpoint", run, "--output", out]) == 0
    trained, again = SleepModule.load_from_checkpoint(run).model, load_pretrained(out)
    parameters = zip(trained.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in parameters)
    capsys.readouterr()
    assert main(["export", "--checkpoint", run, "--output", out]) == 2
    assert "exists already and is not empty" in capsys.readouterr().err
