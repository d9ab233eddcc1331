"""The job is the training, not what it says: outputs that break are dropped."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sleep_lightning.cli.streams import ERASE
from tests.cli.cli import environment, fit_arguments

FIT = [sys.executable, "-m", "sleep_lightning", *fit_arguments("run", 12, "training.val_every=1")]


def status(folder: Path) -> str:
    return str(json.loads((folder / "run" / "summary.json").read_text())["status"])


@pytest.mark.process
def test_who_stops_listening_ends_no_training(tmp_path: Path) -> None:
    process = subprocess.Popen(
        FIT, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith("run run: ")
    process.stdout.close()
    process.stderr.close()
    assert process.wait(240) == 0
    assert status(tmp_path) == "FINISHED"


@pytest.mark.process
@pytest.mark.slow
def test_a_full_disk_under_the_log_ends_no_training(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(FIT, cwd=tmp_path, env=environment(), stdout=full, stderr=full).returncode == 0
    assert status(tmp_path) == "FINISHED"


@pytest.mark.process
@pytest.mark.slow
def test_streams_that_were_closed_before_the_start_end_no_training(tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    assert subprocess.run([*closed, *FIT], cwd=tmp_path, env=environment()).returncode == 0
    assert status(tmp_path) == "FINISHED"
    refused = [sys.executable, "-m", "sleep_lightning", "config", "nothing=1"]
    assert subprocess.run([*closed, *refused], cwd=tmp_path, env=environment()).returncode == 2


@pytest.mark.process
def test_a_terminal_without_utf_8_gets_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text("training: {max_steps: é}")
    plain = environment() | {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "sleep_lightning", "cost"], cwd=tmp_path, env=plain, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "sleep_lightning", "config", "--config", "é.yaml"]
    refused = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True)
    assert refused.returncode == 2 and refused.stderr.startswith(b"error: ") and refused.stderr.count(b"\n") == 1


@pytest.mark.process
def test_a_terminal_shows_at_once_that_libraries_load(tmp_path: Path) -> None:
    """Before anything heavy is imported; a log has no such line."""
    master, slave = pty.openpty()
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "sleep_lightning", "sweep", "list"], cwd=tmp_path, env=environment(), stderr=slave
    )
    shown = os.read(master, 100).decode()
    assert shown.startswith("sweep: loading") and child.poll() is None, shown
    first = time.monotonic() - began
    assert child.wait() == 0
    assert first < (time.monotonic() - began) / 2
    shown += os.read(master, 100).decode()
    assert shown == f"sweep: loading\r{ERASE}"
    os.close(slave)
    os.close(master)
