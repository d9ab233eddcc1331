"""The copy of the output that a run keeps."""

import sys
from pathlib import Path

import pytest

from sleep_lightning.cli.console_log import copied_output
from sleep_lightning.cli.streams import ERASE
from sleep_lightning.redaction import remember


def test_a_bar_that_is_drawn_over_leaves_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(["s3cret-of-the-log"])
    with copied_output(tmp_path / "console.log"):
        for step in range(3):
            print(f"\r{ERASE}train {step}/3", end="", file=sys.stderr)
        print(f"\r{ERASE}\x1b[1mstep 3\x1b[0m: loss 1\ntrain 3/3", end="", file=sys.stderr)
        print(f"\r{ERASE}", end="", file=sys.stderr)
        print("token s3cret-of-the-log")
    assert (tmp_path / "console.log").read_text() == "step 3: loss 1\ntoken ***\n"
    assert "train 2/3" in capsys.readouterr().err, "the terminal has all of it"


def test_starts_follow_one_another_and_a_traceback_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with copied_output(log):
        print("first")
    with pytest.raises(RuntimeError), copied_output(log):
        raise RuntimeError("the second failed")
    text = log.read_text()
    assert text.startswith("first\nTraceback") and text.endswith("RuntimeError: the second failed\n")


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with copied_output(tmp_path / "nowhere" / "console.log"):
        print("goes on")
    with copied_output(Path("/dev/full")):
        print("goes on, too")
    assert capsys.readouterr().out == "goes on\ngoes on, too\n"
