"""A run, a comparison and a sweep on a disk that fills up: each waits, or says so, and finishes once there is space."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sleep_lightning.runs.infrastructure import Cause
from tests.cli.cli import ROOT, SMALL, fit_arguments, run, start
from tests.cli.test_fit import assert_same

pytestmark = [pytest.mark.process, pytest.mark.slow]
MEGABYTES = 12
BLOCK = 4096
STEPS = 300


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    (place := tmp_path / "disk").mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Use up all of it. Returns the file to remove."""
    with (disk / "filler").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(BLOCK))
        except OSError:
            return disk / "filler"


def wait_until(true: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def said(process: subprocess.Popen[str]) -> str:
    """All it prints, until its end."""
    return process.communicate(timeout=300)[0]


def assert_one_sentence(text: str) -> None:
    [line] = [one for one in text.splitlines() if one.startswith("error: ")]
    assert "cannot be written: No space left on device (needs " in line and "B free in " in line
    assert "Traceback" not in text


@pytest.mark.parametrize("tracked", [True, False])
def test_a_run_does_not_begin_without_space(disk: Path, tracked: bool) -> None:
    filler = fill(disk)
    wanted = fit_arguments("run", 10, f"tracking.enabled={str(tracked).lower()}")
    done = run(disk, *wanted)
    assert done.returncode == Cause.DISK
    assert_one_sentence(done.stderr)
    assert len(done.stderr.splitlines()) == 1
    filler.unlink()
    again = run(disk, *wanted)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("full_seconds", [5, 60])
def test_a_run_in_the_middle_waits_or_ends_and_resumes_to_the_bit(
    disk: Path, tmp_path: Path, full_seconds: float
) -> None:
    cadence = ("training.val_every=100", "training.checkpoint_every=10")
    wanted = fit_arguments("run", STEPS, "tracking.enabled=false", *cadence)
    process, last = start(disk, *wanted), disk / "run" / "checkpoints" / "last.ckpt"
    wait_until(last.exists)
    filler = fill(disk)
    if full_seconds < 30:
        time.sleep(full_seconds)
        filler.unlink()
    text = said(process)
    assert "cannot be written yet: No space left on device (needs " in text
    if full_seconds < 30:
        assert process.returncode == 0, text
    else:
        assert process.returncode == Cause.DISK
        assert_one_sentence(text)
        filler.unlink()
        assert 0 < torch.load(last, weights_only=True)["global_step"] < STEPS, "what was there before is gone"
        done = run(disk, "fit", "--resume", "run")
        assert done.returncode == 0, done.stderr
    whole = run(tmp_path, *wanted)
    assert whole.returncode == 0, whole.stderr
    found, expected = (torch.load(d / "run" / "checkpoints" / "last.ckpt", weights_only=True) for d in (disk, tmp_path))
    assert_same(found["state_dict"], expected["state_dict"])


def test_a_comparison_waits_for_space(disk: Path) -> None:
    words = ["compare", str(ROOT / "conf" / "rule110.yaml"), *SMALL, "training.max_steps=100"]
    process = start(disk, *words, "--arms", "n1", "n2", "--seeds", "0", "--output", "out")
    wait_until((disk / "out" / "n1-seed0" / "checkpoints" / "last.ckpt").exists)
    filler = fill(disk)
    time.sleep(60)  # longer than a write waits: the run ends, and is started again
    filler.unlink()
    text = said(process)
    assert process.returncode == 0, text
    assert "; started again in " in text and "Traceback" not in text
    assert (disk / "out" / "comparison.json").exists() and len(list(disk.glob("out/*/summary.json"))) == 2


def test_a_sweep_waits_for_space(disk: Path) -> None:
    content = {
        "name": "full",
        "base": str(ROOT / "conf" / "rule110.yaml"),
        "overrides": [*SMALL, "training.max_steps=100", "tracking.enabled=false"],
        "space": {"sleep.n_passes": {"choices": [1, 2]}},
        "budget": {"trials": 2},
        "sampler": "grid",
        "pruner": "none",
        "retries": 0,
    }
    (disk / "sweep.yaml").write_text(json.dumps(content))
    process, folder = start(disk, "sweep", "sweep.yaml"), disk / "runs" / "sweeps" / "full"
    wait_until((folder / "trials" / "0000-seed0" / "checkpoints" / "last.ckpt").exists)
    filler = fill(disk)
    time.sleep(60)
    filler.unlink()
    text = said(process)
    assert process.returncode == 0, text
    # the sweep's own writes may have waited for as long
    assert re.search("exit code 74: .*; (started again in|resumed)", text) and "Traceback" not in text
    listed = run(disk, "sweep", "show", "full")
    assert listed.returncode == 0 and "failed" not in listed.stdout, listed.stdout
    assert len(list(folder.glob("trials/*/summary.json"))) == 2
