"""Runs the command line as a user does: in a process of its own, most of the time a warm one."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.warm import run_warm

ROOT = Path(__file__).parent.parent.parent

SMALL = [
    "task.ring_size=6",
    "task.n_strings=2",
    "task.steps=[1]",
    "model.d_model=16",
    "model.d_ff=24",
    "training.batch_size=8",
    "training.val_every=5",
    "training.val_batches=1",
    "training.val_batch_size=64",
    "training.checkpoint_every=5",
    "training.log_every=1",
]
"""Overrides of conf/rule110.yaml under which a step takes milliseconds."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sleep_lightning", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(cwd: Path, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    if (done := run_warm(arguments, cwd, environment(), timeout)) is not None:
        return done
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def fit_arguments(run_dir: str, max_steps: int, *more: str) -> list[str]:
    config = str(ROOT / "conf" / "rule110.yaml")
    return ["fit", "--config", config, *SMALL, f"training.max_steps={max_steps}", f"training.run_dir={run_dir}", *more]
