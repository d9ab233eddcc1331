"""sweep list, show, best, report and resume, on studies made up beforehand."""

from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli.commands.sweep import VERBS, with_verb
from sleep_lightning.config import load_experiment
from sleep_lightning.sweep.folder import sole_supervisor
from tests.sweep.studies import ToldStudy


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def small(name: str = "small", finished: bool = True) -> ToldStudy:
    study = ToldStudy(Path("runs/sweeps") / name)
    if finished:
        study.finish(2, 0.5, 2e12)
        study.finish(4, 0.75, 4e12)
        study.fail(3, failed="out of memory", flops_spent=1e12)
    study.ask(1)
    return study


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed as an error: one line."""
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "list"]) == 0
    assert capsys.readouterr().out == "there is no sweep in runs/sweeps/ yet; start one with sweep SPEC.yaml\n"
    study = small()
    small("broken").folder.joinpath("journal.log").write_text("no journal\n{}\n")
    small("young", finished=False)
    ToldStudy(Path("runs/sweeps/done")).finish(2, 0.5, 2e12)
    with sole_supervisor(study.folder):
        assert main(["sweep", "list"]) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    assert "running" in lines["small"] and "2 complete, 1 failed, 1 running" in lines["small"]
    assert "0.250" in lines["small"] and "7 TFLOP" in lines["small"]  # 0.5 x 2 of 4, and 0
    assert "stopped" in lines["young"] and "1 interrupted" in lines["young"]
    assert "finished" in lines["done"] and "1 complete" in lines["done"]
    assert "damaged" in lines["broken"]


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    small()
    assert main(["sweep", "show", "small"]) == 0
    out = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert cells[0][:4] == ["0", "complete", "2 TFLOP", "0.500"]
    assert cells[0][4] == "n_passes=2"
    assert cells[2][1] == "failed" and cells[2][5] == "out of memory"
    assert cells[3][1] == "interrupted"


def test_of_many_trials_those_are_shown_that_are_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    study = ToldStudy(Path("runs/sweeps/many"))
    study.fail(3, failed="out of memory")
    study.ask(1)
    for i in range(45):
        study.finish(1, i / 50, 1e12)
    study.study.enqueue_trial({"sleep.n_passes": 4})
    assert main(["sweep", "show", "many"]) == 0
    out = capsys.readouterr().out
    rows = [int(line.split("│")[1]) for line in out.splitlines() if line.startswith("│")]
    assert rows == [0, 1, *range(9, 47)] and "small: 40 of 48 trials" in out
    assert "not shown    8 trials; " in out and "all: python -m sleep_lightning sweep show many --all\n" in out
    assert main(["sweep", "show", "many", "--all"]) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("│") for line in out.splitlines()) == 48
    assert "small: all trials" in out and "not shown" not in out


def test_a_sweep_has_one_state_wherever_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    small("left")
    done = ToldStudy(Path("runs/sweeps/done"))
    done.finish(2, 0.5, 2e12)
    for name, state in (("left", "stopped"), ("done", "finished")):
        assert main(["sweep", "list"]) == main(["sweep", "show", name]) == 0
        out = capsys.readouterr().out
        [listed] = [line for line in out.splitlines() if line.startswith(f"│ {name}")]
        [shown] = [line.split() for line in out.splitlines() if line.startswith("  sweep ")]
        assert state in listed and shown == ["sweep", state]
    with sole_supervisor(done.folder):
        assert main(["sweep", "show", "done"]) == 0
    assert "  sweep        running\n" in capsys.readouterr().out


def test_best_is_exported_as_an_experiment_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    study = small()
    assert main(["sweep", "best", "small", "--export", "best.yaml"]) == 0
    assert "python -m sleep_lightning fit --config best.yaml" in capsys.readouterr().out
    assert main(["sweep", "best", str(study.folder), "--max-flops", "3e12", "--export", "cheap.yaml"]) == 0
    best, cheap = load_experiment("best.yaml"), load_experiment("cheap.yaml")
    assert (best.sleep.n_passes, cheap.sleep.n_passes) == (4, 2)
    wanted = study.sweep.experiment({"sleep.n_passes": 2}, "tracking.enabled=true")
    assert cheap.to_dict() == wanted.to_dict()
    assert main(["sweep", "best", "small", "--export", "best.yaml"]) == 2
    assert "--export best.yaml exists already; choose another name, or remove it" in capsys.readouterr().err
    assert main(["sweep", "best", "small", "--export", "no/best.yaml"]) == 2
    assert "there is no folder no; create it first" in sentence(capsys)
    for number in ("nan", "inf", "-1", "0", "1e999"):
        assert main(["sweep", "best", "small", f"--max-flops={number}"]) == 2
        assert f"--max-flops {float(number)} must be a finite number above 0" in sentence(capsys)
    assert main(["sweep", "best", "small", "--max-flops", "1e12"]) == 2
    assert "--max-flops 1e+12: the cheapest finished trial took 2e+12; allow as much" in sentence(capsys)


def test_best_without_export_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    small()
    assert main(["sweep", "best", "small", "--max-flops", "3e12"]) == 0
    assert "sweep best small --max-flops 3e+12 --export conf/best.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["show", "best", "report", "resume"])
def test_an_unknown_name(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    small()
    small("list")
    assert main(["sweep", verb, "smal"]) == 2
    assert "'smal' is neither a sweep in runs/sweeps/ nor the folder of one" in (text := sentence(capsys))
    assert "known are list, small" in text


def test_no_finished_trial(capsys: pytest.CaptureFixture[str]) -> None:
    study = small(finished=False)
    assert main(["sweep", "best", "small"]) == 2
    assert "small has no finished trial yet; go on with: sweep resume NAME" in sentence(capsys)
    assert main(["sweep", "show", "small"]) == main(["sweep", "list"]) == main(["sweep", "report", "small"]) == 0
    assert "No trial is finished yet" in (study.folder / "report.html").read_text()


@pytest.mark.long
def test_report_names_its_files(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    study = small()
    assert main(["sweep", "report", "small"]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {file.name for file in files} >= {"report.html", "frontier.html", "frontier.png", "trials.csv"}
    assert all(file.stat().st_size > 100 for file in files)
    assert "sweep best small --export" in (study.folder / "report.html").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sleep_lightning.cli.sweep_show.write_report", full)
    assert main(["sweep", "report", "small"]) == 2
    assert "runs/sweeps/small cannot be written: No space left on device" in sentence(capsys)


def test_resume_of_a_running_or_an_old_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    study = small()
    assert main(["sweep", "resume", "small"]) == 2
    assert "has no sweep.yaml (it was started by an earlier version); run its own YAML again" in sentence(capsys)
    with sole_supervisor(study.folder):
        assert main(["sweep", "resume", "small"]) == 2
    assert "is being run by another process; look at it with: sweep show small" in sentence(capsys)


def test_verbs_and_names_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_verb(["a.yaml", "--dry-run"]) == ["run", "a.yaml", "--dry-run"]
    assert with_verb(["--dry-run", "list.yaml"]) == ["run", "--dry-run", "list.yaml"]
    for arguments in ([], ["--help"], *([verb, "x"] for verb in VERBS)):
        assert with_verb(arguments) == arguments
    small("list")
    assert main(["sweep", "show", "list"]) == 0
    assert "runs/sweeps/list" in capsys.readouterr().out
    assert main(["sweep", "lst"]) == 2
    assert (
        "sweep lst: neither a sweep file (its name ends in .yaml or .yml) nor a verb; did you mean list?"
        in sentence(capsys)
    )
    with pytest.raises(SystemExit, match="0"):
        main(["sweep", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(text in shown for text in VERBS.values())
