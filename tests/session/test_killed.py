"""kill -9 in the middle of saving: an older state is never lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.cli import ROOT, environment

KILLS = 50


@pytest.mark.slow
@pytest.mark.process
def test_kill_9_in_the_middle_of_saving(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.session.killed_saving", str(tmp_path / "x"), str(KILLS)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kills, in_the_middle = map(int, done.stdout.split())
    assert kills == KILLS and in_the_middle > 0, "no kill has hit a file that was being written"
    assert len(list(tmp_path.iterdir())) <= 2, "what is left of a killed writer is written over by the next"
