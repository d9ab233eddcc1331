"""What is seen of a sweep, on terminals of several sizes and in a log."""

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.cli import sweep_progress
from sleep_lightning.cli.sweep_progress import watch
from sleep_lightning.cli.sweep_view import EVENT_LINES, Pace, SweepView
from sleep_lightning.cli.terminal_plot import plot_frontier
from sleep_lightning.frontier import Point
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.runs.progress import RunProgress
from sleep_lightning.sweep.ledger import FinishedTrial
from sleep_lightning.sweep.snapshot import RunningTrial, Snapshot
from sleep_lightning.sweep.study import open_study
from sleep_lightning.sweep.supervisor import Supervisor
from tests.sweep import stand_in
from tests.sweep.sweeps import small_sweep

VALUES = {"sleep.n_passes": 3, "model.pattern": "[red]GA[/]", "training.max_steps": 1200}
AT = RunProgress(400, 3.41e12, Accuracy(0.412, 1024, majority=0.134, uniform=0.125), loss=1.234, tokens_per_s=5678.0)
RUNNING = RunningTrial(17, VALUES, 2, 2, AT, 1200, flops_spent=3.41e12, train_flops=10.3e12)
FINISHED = tuple(
    FinishedTrial(i, {"sleep.n_passes": n}, Point(cost * 1e12, value))
    for i, (n, cost, value) in enumerate([(1, 1, 0.2), (2, 2, 0.1), (4, 10, 0.9)])
)
NOW = Snapshot(
    (RUNNING, replace(RUNNING, number=18, progress=RunProgress())),
    {"complete": 3, "pruned": 2},
    4,
    FINISHED,
    5e13,
    None,
)
PACE = Pace(seconds=600.0, flops=6e13)


def draw(width: int, height: int, now: Snapshot = NOW, name: str = "small") -> list[str]:
    sweep = small_sweep(trials=30)
    sweep.spec.name = name
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="truecolor")
    console.print(SweepView(sweep).draw(now, PACE, console))
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()


@pytest.mark.parametrize(("width", "height"), [(60, 30), (80, 24), (80, 50), (200, 60)])
def test_all_of_it_fits(width: int, height: int) -> None:
    lines = draw(width, height)
    assert len(lines) <= height - EVENT_LINES
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "5/30 trials" in lines[0]
    assert "2 running  3 complete  2 pruned  0 failed  0 infeasible" in lines[1]
    assert "56.8 TFLOP, hypervolume 0.180, 0:10:00 elapsed" in lines[2]
    assert "17 (2/2)" in text and "400/1200" in text and "0.412" in text and "3.41/10.3 TFLOP" in text
    assert lines[3].rstrip() == "majority 0.134, uniform 0.125"
    assert ("± 0.015" in text, "1.234" in text, "5.68k" in text) == (width >= 70, width >= 90, width >= 100)
    assert "[red]GA[/]" in re.sub(r"\s", "", text)  # what is in a file is no markup
    assert ("N = 1 2 4" in text) == (height > 24 or width > 60)


def test_a_low_terminal_keeps_the_numbers() -> None:
    assert len(draw(80, 16)) == 4 + 7
    assert len(draw(80, 9)) == 4
    assert len(draw(80, 24, replace(NOW, running=(), finished=()))) == 3
    assert "[/b]" in draw(80, 24, name="[/b]")[0]


def test_it_is_said_when_nothing_beats_the_majority_answer() -> None:
    weak = replace(NOW, finished=tuple(replace(t, point=Point(t.point.cost, 0.134)) for t in FINISHED))
    said = "majority 0.134, uniform 0.125, nothing beats the majority answer yet"
    assert said in draw(80, 24, weak)[3]
    status = SweepView(small_sweep(trials=9)).status(weak, PACE)
    assert status.endswith(f"; 17 at step 400/1200, 18 at step 0/1200; {said}")


def test_the_time_left() -> None:
    def eta(now: Snapshot, pace: Pace) -> str:
        return SweepView(small_sweep(trials=9)).status(now, pace).rpartition("ETA ")[2].partition(";")[0]

    assert eta(NOW, PACE) == "6 min"  # (2 x 6.89T to finish + 2 x 10T to begin) / 0.1T a second
    assert eta(NOW, Pace(600.0, 3e12)) == "1 h 53 min"
    assert eta(NOW, Pace(600.0, 0.0)) == "-"
    assert eta(NOW, Pace(1.0, 3e13)) == "< 1 min"


def test_the_plot_marks_n_where_it_belongs() -> None:
    text = plot_frontier({2: [Point(1e12, 0.0), Point(1e13, 0.5)], 12: [Point(1e14, 1.0)]}, 80, 12).plain.splitlines()
    assert text[0] == "exact match over training FLOPs, N = 2 c (12)"
    assert len(text) == 12 and max(map(len, text)) <= 80
    rows = {line[:4].strip(): line for line in text if "┤" in line}
    assert rows["1.00"].index("c") > rows["0.50"].index("2") > rows["0.00"].index("2")
    middle = rows["0.50"].index("2") - rows["0.00"].index("2")
    assert abs(rows["1.00"].index("c") - rows["0.50"].index("2") - middle) <= 1, "the axis is not logarithmic"
    assert "·" in rows["0.50"] and text[-1].split() == ["1T", "2T", "5T", "10T", "20T", "50T", "100T"]


@pytest.mark.parametrize("points", [[], [Point(0.0, 0.5)], [Point(1e12, float("nan"))]])
def test_nothing_to_plot(points: list[Point]) -> None:
    assert plot_frontier({1: points}, 80, 12).plain == "no trial with a cost has finished yet"


def test_one_point_is_a_plot() -> None:
    assert "3T" in plot_frontier({1: [Point(3e12, 0.4)]}, 80, 12).plain


def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Console) -> tuple[str, list[int]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def command(self: FitProcess) -> list[str]:
        if self.experiment.sleep.n_passes > 2:
            return [
                sys.executable,
                "-S",
                "-c",
                "print('\\033[2J[/b] \\033[31mout\\033[0m of memory'); raise SystemExit(1)",
            ]
        return [sys.executable, "-S", stand_in.__file__, "fit", str(self.directory.path), "1"]

    monkeypatch.setattr(FitProcess, "command", command)
    sweep = small_sweep(trials=2, retries=0)
    supervisor, told = Supervisor(sweep, open_study(sweep, tmp_path), tmp_path), []
    watch(supervisor, console, lambda: told.append(supervisor.snapshot().counted))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), told


@pytest.mark.process
def test_a_log_has_an_event_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_progress, "STATUS_SECONDS", 0.3)
    text, told = watched(tmp_path, monkeypatch, Console(file=io.StringIO(), width=80))
    lines = text.splitlines()
    assert "\x1b" not in text
    assert sum("complete: exact_match 0.100, train_flops 6 MFLOP" in line for line in lines) == 2
    assert all(line.endswith("[/b] out of memory") for line in lines if "fail: " in line)
    assert any(re.match(r"\d/2 trials: .*FLOP, hypervolume .*, 0:00:0\d elapsed, ETA ", line) for line in lines)
    assert told == sorted(told) and told[-1] == 2


@pytest.mark.process
def test_a_terminal_has_a_view_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=80, height=40, force_terminal=True, _environ={"TERM": "xterm"})
    text, _ = watched(tmp_path, monkeypatch, console)
    assert "\x1b[2J" not in text, "a log's control characters reached the terminal"
    assert text.count("elapsed") > 1 and "1 running" in text
    assert "complete: exact_match 0.100" in text
    assert text.endswith("\x1b[1A\x1b[2K") and "\x1b[?25h" in text  # erased; the cursor is back
