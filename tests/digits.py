"""Whether a change left every digit of training alone: 20 steps of each laptop experiment, here and at another commit.

``python -m tests.digits COMMIT`` trains both and exits with 1 if a loss or the final weights differ in any bit.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
STEPS = 20
OVERRIDES = [
    "training.seed=0",
    f"training.max_steps={STEPS}",
    "training.log_every=1",
    "training.val_every=10",
    "training.val_batches=1",
    "training.threads=1",
    "tracking.uri=sqlite:///losses.db",
    "training.run_dir=run",
]
OWN = {
    "rule110_sliding": ["training.stages=[{steps: 10, train: memory, eviction: hard}]"],
    "text": [f"task.train={ROOT}/conf/notes.jsonl"],
}
"""The shipped first stage is longer than this run: both stages must take part. Runs have a folder of their own."""


def digits(checkout: Path) -> dict[str, dict[str, str]]:
    """Per experiment the training losses, validation losses and a hash of the weights, as exact text."""
    found: dict[str, dict[str, str]] = {}
    for config in sorted((checkout / "conf").glob("*.yaml")):
        if config.stem.endswith("_paper") or "pretrained:" in config.read_text():
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "sleep_lightning", "fit", "--config", str(config), *OVERRIDES]
            environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
            subprocess.run(
                [*command, *OWN.get(config.stem, [])], cwd=folder, env=environment, check=True, capture_output=True
            )
            found[config.stem] = _read(Path(folder))
    return found


def _read(folder: Path) -> dict[str, str]:
    with sqlite3.connect(folder / "losses.db") as database:
        rows = database.execute("SELECT step, value FROM metrics WHERE key = 'train/loss' ORDER BY step").fetchall()
    assert len(rows) == STEPS, f"{len(rows)} training losses of {STEPS} steps"
    earlier, now = (folder / "run" / name for name in ("history.json", "history.jsonl"))
    history = list(map(json.loads, now.open())) if now.exists() else json.loads(earlier.read_text())["history"]
    checkpoint = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    weights = hashlib.sha256()
    for name, x in sorted(checkpoint["state_dict"].items()):
        weights.update(name.encode() + x.numpy().tobytes())
    return (
        {f"train {step}": repr(value) for step, value in rows}
        | {f"validation {one['step']}": repr(one["loss"]) for one in history}
        | {"weights": weights.hexdigest()}
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", help="to compare with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(before), arguments.commit], check=True, capture_output=True)
        try:
            then = digits(before)
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True, capture_output=True)
    now, differ = digits(ROOT), 0
    for name, values in then.items():
        wrong = [key for key, value in values.items() if now.get(name, {}).get(key) != value]
        differ += len(wrong)
        print(f"{name}: {len(values)} values, {'all equal' if not wrong else f'different: {wrong}'}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
