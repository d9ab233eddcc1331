"""Which validation ``best.ckpt`` is of."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sleep_lightning.training.callbacks.checkpoints import BestCheckpoint


def saved(best: BestCheckpoint, monkeypatch: pytest.MonkeyPatch, *scores: tuple[float, float | None]) -> list[int]:
    """The validations at which it saves, of exact match and loss."""
    steps = list[int]()
    monkeypatch.setattr(best, "_save_checkpoint", lambda trainer, path: steps.append(trainer.global_step))
    monkeypatch.setattr(best, "format_checkpoint_name", lambda *a, **k: str(best.dirpath) + "/best.ckpt")
    for step, (exact, loss) in enumerate(scores):
        metrics = {"val/exact_match": torch.tensor(exact)} | ({} if loss is None else {"val/loss": torch.tensor(loss)})
        strategy = SimpleNamespace(reduce_boolean_decision=lambda x: x, broadcast=lambda x: x)
        trainer: Any = SimpleNamespace(
            callback_metrics=metrics, strategy=strategy, global_step=step, current_epoch=0, default_root_dir="."
        )
        best._save_monitor_checkpoint(trainer, best._monitor_candidates(trainer))
    return steps


def test_of_equal_accuracies_the_lower_loss_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = BestCheckpoint(tmp_path)
    scores = [(0.0, 2.0), (0.0, 1.0), (0.0, 1.5), (0.5, 3.0), (0.25, 0.1), (0.5, 3.5), (0.5, 2.5)]
    assert saved(best, monkeypatch, *scores) == [0, 1, 3, 6]
    assert best.state_dict()["best_loss"] == 2.5
    resumed = BestCheckpoint(tmp_path)
    monkeypatch.setattr("sleep_lightning.training.callbacks.checkpoints.is_readable", lambda *a: True)
    resumed.load_state_dict(best.state_dict())
    assert saved(resumed, monkeypatch, (0.5, 2.6), (0.5, 2.4)) == [1]


def test_without_a_loss_and_after_an_earlier_version_the_first_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saved(BestCheckpoint(tmp_path), monkeypatch, (0.5, None), (0.5, None), (0.6, 1.0), (0.6, 0.5)) == [0, 2, 3]
    earlier = BestCheckpoint(tmp_path)
    assert saved(earlier, monkeypatch, (0.5, 1.0)) == [0]
    state = earlier.state_dict()
    del state["best_loss"]
    monkeypatch.setattr("sleep_lightning.training.callbacks.checkpoints.is_readable", lambda *a: True)
    resumed = BestCheckpoint(tmp_path)
    resumed.load_state_dict(state)
    assert saved(resumed, monkeypatch, (0.5, 0.1), (0.7, 0.9)) == [1]
