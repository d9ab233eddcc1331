from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from sleep_lightning.cli import fit
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.training.train import train
from tests.cli.cli import ROOT, SMALL

OVERRIDES = [*SMALL, "training.max_steps=10", "training.accelerator=cpu", "tracking.enabled=false"]
CONFIG = ROOT / "conf" / "rule110.yaml"


@pytest.mark.process
def test_the_same_weights_as_fit_and_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = train(load_experiment(CONFIG, OVERRIDES))
    assert not list(tmp_path.iterdir())
    assert [row["step"] for row in module.history] == [5, 10]
    assert capsys.readouterr().out.count("majority") == 2
    assert not module.model.training
    assert fit.fit(fit.prepare(str(CONFIG), [*OVERRIDES, "training.run_dir=run"], None)) == 0
    weights = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    mine = module.state_dict()
    assert weights.keys() == mine.keys()
    assert all(torch.equal(weights[name], mine[name]) for name in weights)


@pytest.mark.parametrize(("steps", "validated"), [(3, [3]), (7, [5, 7])])
def test_final_weights_are_validated(steps: int, validated: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    module = train(load_experiment(CONFIG, [*OVERRIDES, f"training.max_steps={steps}"]))
    assert [row["step"] for row in module.history] == validated
    assert module.history[-1]["loss"] == module.scores["all"].loss
    assert capsys.readouterr().out.count("majority") == len(validated)


class Counting(pl.Callback):
    begun = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Counting.begun += 1


def test_callbacks_of_the_experiment_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "begun", 0)
    own = f"training.callbacks=[{{class_path: {__name__}.Counting}}]"
    train(load_experiment(CONFIG, [*OVERRIDES, "training.max_steps=1", own]))
    assert Counting.begun == 1


def test_more_than_one_process_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.devices=2 .* train\(\) is one; use"):
        train(load_experiment(CONFIG, [*OVERRIDES, "training.devices=2"]))
