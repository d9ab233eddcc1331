"""A run of seconds that is trained by several ranks, and compared with one process."""

from pathlib import Path

import pytest
import torch

from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.runs.directory import RunDirectory
from tests.cli.cli import ROOT, SMALL

STEPS = 60
CALM = ["training.muon_lr=3e-4", "training.adamw_lr=3e-4", "training.val_every=20", "training.checkpoint_every=2"]
KEYS = [*SMALL, *CALM, f"training.max_steps={STEPS}", "training.accelerator=cpu", "tracking.enabled=false"]
"""Learning rates that do not blow rounding up, and so many checkpoints that a signal comes before the last."""


def fit_words(run: Path, *more: str) -> list[str]:
    return ["fit", "--config", str(ROOT / "conf" / "rule110.yaml"), *KEYS, f"training.run_dir={run}", *more]


def rows(run: Path) -> dict[float, dict[str, float]]:
    return {row["step"]: row for row in load_checkpoint(RunDirectory(run).last)["history"]}


def assert_same_training(run: Path, alone: Path) -> None:
    """The same but for rounding, which Muon in bf16 lets grow over so many steps.

    Of one process that cuts its batches in two or four, or lays no weights out, losses end up to 0.3% apart; in these
    steps they fall by a tenth.
    """
    one, other = (load_checkpoint(RunDirectory(path).last) for path in (alone, run))
    torch.testing.assert_close(other["state_dict"], one["state_dict"], rtol=1e-3, atol=5e-4)
    expected, actual = rows(alone), rows(run)
    assert expected.keys() == actual.keys() and len(expected) == 3
    for step, row in expected.items():
        assert actual[step]["cost/train_flops"] == row["cost/train_flops"]
        assert actual[step]["loss"] == pytest.approx(row["loss"], rel=1e-3 if step < STEPS else 5e-3), step
    assert expected[STEPS]["loss"] < 0.95 * expected[STEPS // 3]["loss"]
