import subprocess
import sys
from pathlib import Path

import pytest

from sleep_lightning.bench import first_line, startup
from sleep_lightning.bench.first_line import bench_first_lines, first_output
from sleep_lightning.cli.commands import COMMANDS

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_the_parts_of_a_start_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "ROUNDS", 1)
    monkeypatch.setattr(startup, "bench_first_lines", lambda experiment, rounds: iter(()))
    rows = {str(row["contender"]): float(str(row["cpu_seconds"])) for row in startup.bench_startup(0)}
    first_step, whole = rows.pop(startup.FIRST_STEP), rows.pop(startup.WHOLE)
    assert list(rows)[:4] == ["Python", "import torch", "import MLflow", "import Lightning"]
    assert list(rows)[-1] == "end of the process"
    assert all(taken >= 0 for taken in rows.values())
    assert rows["import Lightning"] > rows["MLflow: end the run"] and first_step > rows["import torch"]
    assert whole > first_step


def test_no_command_is_left_out() -> None:
    assert {words[0] for words in first_line.COMMANDS} == {"--help", *COMMANDS}


def test_the_first_character_is_timed_and_not_the_end(tmp_path: Path) -> None:
    said = "import time; time.sleep(0.2); print('.', end='', flush=True); time.sleep(0.5); print(open('here').read())"
    (tmp_path / "here").write_text("x" * 2**18)  # more than a terminal holds
    first, end = first_output([sys.executable, "-S", "-c", said], str(tmp_path))
    assert 0.2 <= first <= end - 0.45
    first, end = first_output([sys.executable, "-S", "-c", ""], str(tmp_path))
    assert first == end


@pytest.mark.long
@pytest.mark.parametrize("words", [["sweep", "list"], ["compare", "experiment.yaml", "--arms", "nothing"]])
def test_a_terminal_hears_of_a_command_before_it_has_loaded(words: list[str]) -> None:
    """The libraries of either take a second and more."""
    [row] = bench_first_lines("task: {name: rule110}\n", rounds=1, commands=[words])
    assert float(str(row["first_line_s"])) < float(str(row["end_s"])) / 3


def test_a_fit_that_fails_is_not_timed(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        startup._fit(["false"], tmp_path)
