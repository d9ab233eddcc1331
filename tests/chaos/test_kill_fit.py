"""kill -9 of training at random moments: whatever is resumed ends with the same bits, its history without a hole."""

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.chaos.conftest import Figures
from tests.chaos.forked import command, start
from tests.cli.cli import fit_arguments
from tests.cli.test_fit import assert_same

pytestmark = [pytest.mark.process, pytest.mark.long]
KEYS = ("state_dict", "optimizer_states", "lr_schedulers", "rng", "global_step", "TaskDataModule", "digests")
CADENCE = ("training.val_every=4", "training.checkpoint_every=6", "tracking.enabled=false")
STEPS = 24


def begin(folder: Path) -> Any:
    """Start the run, or resume it."""
    begun = (folder / "run" / "config.yaml").exists()
    return start(folder, command, *(["fit", "--resume", "run"] if begun else fit_arguments("run", STEPS, *CADENCE)))


def left(folder: Path) -> tuple[dict[str, Any], list[tuple[float, float, float]]]:
    """What matters of its last checkpoint, and its validations."""
    last = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    rows = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    return {key: last[key] for key in KEYS}, [(row["step"], row["loss"], row["cost/train_flops"]) for row in rows]


def test_fit_is_bit_equal_after_kills(tmp_path: Path, kills: int, figures: Figures) -> None:
    (whole := tmp_path / "whole").mkdir()
    start(tmp_path, print, "warm").join(60)
    process, began = begin(whole), time.monotonic()
    process.join(120)
    assert process.exitcode == 0, (whole / "log").read_text()
    seconds, (state, rows) = time.monotonic() - began, left(whole)
    dice, done, runs, equal, lost, twice = random.Random(0), 0, 0, 0, 0, 0
    while done < kills:
        (folder := tmp_path / "killed").mkdir()
        for _ in range(min(dice.choice((1, 2, 3)), kills - done)):
            process = begin(folder)
            process.join(dice.uniform(0.1, 0.9) * seconds)
            done += process.is_alive()
            process.kill()
            process.join(30)
        process = begin(folder)
        process.join(120)
        assert process.exitcode == 0, (folder / "log").read_text()
        found, validated = left(folder)
        steps, wanted = [row[0] for row in validated], [row[0] for row in rows]
        lost += len(set(wanted) - set(steps))
        twice += len(steps) - len(set(steps))
        assert_same(found, state)
        equal += validated == rows
        runs += 1
        shutil.rmtree(folder)
    figures(kills=done, runs=runs, bit_equal=equal, validations_lost=lost, duplicated=twice)
    assert equal == runs and not lost and not twice
