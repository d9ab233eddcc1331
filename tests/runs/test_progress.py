"""How far a run is between two validations, from a file that may be missing, stale or damaged."""

import json
from pathlib import Path

import pytest

from sleep_lightning.runs.progress import Latest, LatestFile, RunProgress

ROW = {"step": 100, "cost/train_flops": 1e12, "exact_match": 0.5, "answers": 64}


def test_the_last_step_comes_behind_the_last_validation(tmp_path: Path) -> None:
    file = LatestFile(tmp_path / "latest_step.json")
    assert RunProgress.of([], file.read()) == RunProgress()
    Latest(120, 0.7, 1.2e12, 5e3).write(tmp_path / "latest_step.json")
    at = RunProgress.of([ROW], file.read())
    assert (at.step, at.train_flops, at.loss, at.tokens_per_s) == (120, 1.2e12, 0.7, 5e3)
    assert str(at.accuracy) == "0.500 ± 0.062"
    assert RunProgress.of([], file.read()).accuracy is None


def test_a_file_of_before_the_last_validation_is_not_believed(tmp_path: Path) -> None:
    at = RunProgress.of([ROW], Latest(80, 0.7, 0.8e12, 5e3))
    assert (at.step, at.train_flops, at.loss) == (100, 1e12, None)


@pytest.mark.parametrize("content", ["", "{", json.dumps({"step": "9"}), json.dumps([1])])
def test_a_damaged_file_is_left(tmp_path: Path, content: str) -> None:
    (tmp_path / "latest_step.json").write_text(content)
    assert LatestFile(tmp_path / "latest_step.json").read() is None


def test_what_cannot_be_written_is_left(tmp_path: Path) -> None:
    (tmp_path / "latest_step.json").mkdir()
    Latest(1, 0.7, 1.0, 1.0).write(tmp_path / "latest_step.json")
    Latest(1, 0.7, 1.0, 1.0).write(tmp_path / "gone" / "latest_step.json")
    assert not (tmp_path / "gone").exists()
