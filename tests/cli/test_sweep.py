"""sweep from the outside, with real runs."""

import json
import math
import re
from pathlib import Path

import optuna
import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli.sweep import prepare
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.spec import load_sweep
from sleep_lightning.sweep.study import build_sampler
from sleep_lightning.tracking.mlflow_frontier import FRONTIER
from tests.cli.cli import ROOT, SMALL, run


def spec(tmp_path: Path, text: str = "") -> str:
    overrides = [*(key for key in SMALL if not key.startswith("task.")), "training.max_steps=5"]
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"name: tiny\nbase: {ROOT}/conf/depo.yaml\noverrides: {json.dumps(overrides)}\n"
        "space: {sleep.n_passes: {choices: [1, 2]}}\nsampler: grid\nbudget: {trials: 2}\nworkers: 2\n" + text
    )
    return str(file)


@pytest.mark.process
def test_a_sweep_leaves_a_frontier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(tmp_path, "sweep", spec(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "sweeps" / "tiny"
    frontier = json.loads((folder / "frontier.json").read_text())["frontier"]
    assert frontier[0]["values"] == {"sleep.n_passes": 1}
    assert (folder / "frontier.png").stat().st_size > 5000
    assert "2 complete" in done.stdout
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "sleep_lightning"]
    found = client.search_runs([experiment.experiment_id])
    parent = next(r for r in found if r.info.run_name == "tiny")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["sweep/flops_spent"] > 0
    assert parent.data.params["sweep.sampler"] == "grid"
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"report.html", "frontier.html", "frontier.png", "frontier.json", "trials.csv"}
    children = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    [lines] = [r for r in children if FRONTIER in r.data.tags]
    assert {"frontier", "majority_answer", "uniform_guess"} < lines.data.metrics.keys()
    children.remove(lines)
    assert len(children) == len({child.data.tags["mlflow.runColor"] for child in children}) == 2
    for child in children:
        metrics = child.data.metrics
        assert metrics["cost/log10_train_flops"] == pytest.approx(math.log10(metrics["cost/train_flops"]))
        assert {"val/exact_match", "cost/wall_s"} <= metrics.keys()
    charts = f"MLflow charts: http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=sweep-{parent.info.run_id}&"
    assert done.stdout.count(charts) == 2  # at start and end
    assert f"mlflow server --backend-store-uri sqlite:///{tmp_path}/mlflow.db --port 5000" in done.stdout
    again = run(tmp_path, "sweep", spec(tmp_path))
    assert again.returncode == 0
    assert again.stdout == done.stdout
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(["sweep", "resume", str(folder)]) == 0
    assert "2 complete" in capsys.readouterr().out
    assert not list((tmp_path / "elsewhere").iterdir())  # the same store as before
    other = run(tmp_path, "sweep", spec(tmp_path, "seeds: [5]\n"))
    assert other.returncode == 2
    assert "holds a sweep named tiny with another seeds" in other.stderr


@pytest.mark.process
def test_points_before_anything_runs(tmp_path: Path) -> None:
    done = run(tmp_path, "sweep", spec(tmp_path), "--dry-run")
    assert done.returncode == 0
    assert "n_passes=2" in done.stdout
    assert not (tmp_path / "runs").exists()
    bad = run(tmp_path, "sweep", spec(tmp_path, "objectives: {speed: maximize}\n"))
    assert bad.returncode == 2
    assert "objectives.speed is not a known metric" in bad.stderr
    assert bad.stderr.count("\n") == 1


def test_a_grid_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", spec(tmp_path), "--dry-run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "n_passes=" in line]
    assert len(lines) == len(set(lines)) > 1


@pytest.mark.long
def test_a_dry_run_shows_what_the_sampler_asks_first_and_what_all_of_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(spec(tmp_path, "seeds: [0, 1]\n"))
    file.write_text(file.read_text().replace("sampler: grid", "sampler: tpe"))
    sweep = load_sweep(file)
    study = optuna.create_study(sampler=build_sampler(sweep.spec, sweep.space), directions=["maximize", "minimize"])
    first = sweep.space.suggest(study.ask())
    assert main(["sweep", str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert written(first) in printed.replace(" │\n│ ", " ")
    assert f"trials of 2 seeds: {2 * sweep.spec.budget.trials}, at most" in printed
    assert re.search(r"time +(about|<) .* at [\d.]+ \w?FLOP/s", printed)


def test_a_store_that_cannot_be_used_is_said_before_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["sweep", spec(tmp_path), "--output", "file/sweep"]) == 2
    assert (
        capsys.readouterr().err == "error: file/sweep cannot hold the sweep: Not a directory; choose another --output\n"
    )
    refused = spec(tmp_path).replace("tiny.yaml", "refused.yaml")
    text = Path(spec(tmp_path)).read_text()
    Path(refused).write_text(text.replace("overrides: [", 'overrides: ["tracking.uri=http://127.0.0.1:9", '))
    assert main(["sweep", refused]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: tracking.uri='http://127.0.0.1:9' cannot be used: ") and printed.count("\n") == 1
    assert not (tmp_path / "runs" / "sweeps" / "tiny" / "trials").exists()


def test_gpus_that_are_not_there_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"devices=\[0, 999\]: torch sees \d+ CUDA devices here"):
        prepare(spec(tmp_path, "devices: [0, 999]\n"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.process
def test_a_sweep_of_which_every_trial_failed_is_no_success(tmp_path: Path) -> None:
    file = Path(spec(tmp_path))
    file.write_text(
        file.read_text()
        .replace("[1, 2]", "[1]")
        .replace("overrides: [", 'overrides: ["training.muon_lr=1e30", "training.log_every=3", ')
    )
    done = run(tmp_path, "sweep", str(file))
    assert done.returncode == 1, done.stdout
    assert "error: every trial failed; see why: python -m sleep_lightning sweep show runs/sweeps/tiny" in done.stderr
