"""The first task of CONTRIBUTING.md: its files, beside each other in an empty folder, do what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.cli import ROOT, environment, run

pytestmark = pytest.mark.process

FILES = re.compile(r'^```\w+ title="([\w.]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = dict(FILES.findall((ROOT / "CONTRIBUTING.md").read_text()))
    assert sorted(files) == ["echo.yaml", "echo_task.py", "test_echo.py"]
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.slow
def test_its_suite_passes(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_echo.py"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_it_trains_and_is_compared(folder: Path) -> None:
    small = ["training.max_steps=4", "training.val_every=2"]
    done = run(folder, "fit", "--config", "echo.yaml", *small)
    assert done.returncode == 0, done.stderr
    assert "slice" in done.stdout and "place" in done.stdout
    done = run(folder, "compare", "echo.yaml", *small, "--arms", "n1", "n2", "--seeds", "0")
    assert done.returncode == 0, done.stderr
