"""sweep from the outside, with real runs."""

import json
from pathlib import Path

import pytest

from sleep_lightning.commands.sweep import prepare
from tests.commands.cli import ROOT, SMALL, run


def spec(tmp_path: Path, text: str = "") -> str:
    overrides = [*(key for key in SMALL if not key.startswith("task.")), "training.max_steps=5"]
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"name: tiny\nbase: {ROOT}/conf/depo.yaml\noverrides: {json.dumps(overrides)}\n"
        "space: {sleep.n_passes: {choices: [1, 2]}}\nsampler: grid\nbudget: {trials: 2}\nworkers: 2\n" + text
    )
    return str(file)


def test_a_sweep_leaves_a_frontier(tmp_path: Path) -> None:
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
    assert sum(r.data.tags.get("mlflow.parentRunId") == parent.info.run_id for r in found) == 2
    again = run(tmp_path, "sweep", spec(tmp_path))
    assert again.returncode == 0
    assert again.stdout == done.stdout
    other = run(tmp_path, "sweep", spec(tmp_path, "seeds: [5]\n"))
    assert other.returncode == 2
    assert "holds a sweep named tiny with another seeds" in other.stderr


def test_points_before_anything_runs(tmp_path: Path) -> None:
    done = run(tmp_path, "sweep", spec(tmp_path), "--dry-run")
    assert done.returncode == 0
    assert "n_passes=2" in done.stdout
    assert not (tmp_path / "runs").exists()
    bad = run(tmp_path, "sweep", spec(tmp_path, "objectives: {speed: maximize}\n"))
    assert bad.returncode == 2
    assert "objectives.speed is never known" in bad.stderr
    assert bad.stderr.count("\n") == 1


def test_gpus_that_are_not_there_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"devices=\[0, 999\]: torch sees \d+ CUDA devices here"):
        prepare(spec(tmp_path, "devices: [0, 999]\n"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
