"""compare from the outside: processes, resuming, failures."""

import json
import signal
import time
from pathlib import Path

import pytest

from sleep_lightning.config import load_experiment
from sleep_lightning.runs.directory import RunDirectory
from tests.cli.cli import ROOT, SMALL, run, start

ARMS = ["--seeds", "0", "--jobs", "2", "--output", "out", "--arms"]


def arguments(steps: int, *more: str) -> list[str]:
    base = str(ROOT / "conf" / "rule110.yaml")
    return ["compare", base, *SMALL, f"training.max_steps={steps}", "training.threads=1", *more]


@pytest.mark.process
def test_a_comparison_and_the_same_again(tmp_path: Path) -> None:
    command = [*arguments(10), *ARMS, "n1", "n2", "--test-passes", "1"]
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "the same in all arms of a seed (2 hashes compared)" in done.stdout
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [(row["arm"], row["test_passes"]) for row in rows] == [("n1", 1), ("n2", 2), ("n2", 1)]
    assert all(0 <= row["exact_match"][0] <= 1 and row["majority"] > 0 for row in rows)
    assert all(0 <= row["no_memory"][0] <= 1 for row in rows) and rows[1]["no_memory"] == rows[2]["no_memory"]
    assert (tmp_path / "out" / "comparison.png").exists() and (tmp_path / "out" / "serving.png").exists()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "sleep_lightning"]
    tagged = client.search_runs([experiment.experiment_id])
    parent = next(r for r in tagged if r.info.run_name == "out")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["n1/answer_flops"] == parent.data.metrics["n2/answer_flops"] > 0
    assert parent.data.metrics["n2/questions"] > 0 and "n1/questions" not in parent.data.metrics
    assert {x.path for x in client.list_artifacts(parent.info.run_id)} >= {"comparison.png", "serving.png"}
    children = [r for r in tagged if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {r.info.run_name for r in children} == {"n1-seed0", "n2-seed0"}
    killed = next(r for r in children if r.info.run_name == "n2-seed0")  # after its summary, before MLflow knew of it
    client.update_run(killed.info.run_id, status="RUNNING")
    store = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "sleep_lightning", "name": "n2-seed0"}
    unsent = [{"store": store}, {"metrics": {"final/late": 1.0}, "step": 10, "time": 0}, {"end": "FINISHED"}]
    outbox = tmp_path / "out" / "n2-seed0" / "mlflow.jsonl"
    outbox.write_text("".join(json.dumps(entry) + "\n" for entry in unsent))
    again = run(tmp_path, *command)
    assert again.returncode == 0
    mended = client.get_run(killed.info.run_id)
    assert mended.info.status == "FINISHED" and mended.data.metrics["final/late"] == 1.0 and not outbox.exists()
    assert "2 runs, 2 already finished" in again.stderr
    assert again.stdout == done.stdout


@pytest.mark.process
@pytest.mark.slow
def test_names_with_dots_stay_apart_and_a_folder_has_one_comparison(tmp_path: Path) -> None:
    arms = [f"lr{lr}:training.muon_lr={lr}" for lr in ("0.01", "0.02")]
    command = [*arguments(4, "tracking.enabled=false"), *ARMS, *arms]
    folder = RunDirectory(tmp_path / "out")
    folder.path.mkdir()
    with folder.lock():
        refused = run(tmp_path, *command)
    assert refused.returncode == 2 and "is being trained by process" in refused.stderr
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    for lr in (0.01, 0.02):
        name = f"lr{lr}-seed0"
        assert load_experiment(folder.path / f"{name}.yaml").training.muon_lr == lr
        assert load_experiment(folder.path / name / "config.yaml").training.muon_lr == lr
        assert (folder.path / f"{name}.log").stat().st_size
    folder.path.rename(tmp_path / "moved")
    again = run(tmp_path, *[x if x != "out" else "moved" for x in command])
    assert again.returncode == 0 and "2 runs, 2 already finished" in again.stderr


@pytest.mark.slow
def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    command = [*arguments(3000, "tracking.enabled=false"), *ARMS, "n1"]
    process = start(tmp_path, *command)
    log, deadline = tmp_path / "out" / "n1-seed0.log", time.monotonic() + 120
    while not (log.exists() and "step 10:" in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "rerun the command to resume them" in output
    assert (tmp_path / "out" / "n1-seed0" / "checkpoints" / "last.ckpt").exists()
    summary = json.loads((tmp_path / "out" / "n1-seed0" / "summary.json").read_text())
    assert summary["status"] == "KILLED"
    assert 10 <= summary["steps"] < 3000


@pytest.mark.process
def test_a_run_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "out" / "n1-seed0").mkdir(parents=True)
    (tmp_path / "out" / "n1-seed0" / "checkpoints").write_text("in the way")
    done = run(tmp_path, *arguments(5, "tracking.enabled=false"), *ARMS, "n1")
    assert done.returncode == 1
    assert "n1 seed 0 failed: error: training.run_dir='out/n1-seed0' cannot be written" in done.stdout


@pytest.mark.process
@pytest.mark.slow
def test_arms_of_text_stand_beside_their_baselines(tmp_path: Path) -> None:
    """What is in the window is answered, after two minutes of training; what has left it is not without a memory."""
    keys = ["task.kinds=[single]", "task.window_tokens=24", "model.d_model=32", "training.batch_size=32"]
    keys += ["training.max_steps=300", "training.val_every=100", "tracking.enabled=false"]
    arms = ["n1", "attention", "bm25", "summary", "full-attention"]
    done = run(tmp_path, "compare", str(ROOT / "conf" / "needle.yaml"), *keys, *ARMS, *arms, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert "bm25, summary: a task of their own" in done.stdout
    rows = {row["arm"]: row for row in json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]}
    exact = {arm: row["exact_match"][0] for arm, row in rows.items()}
    assert exact["bm25"] > 0.9 and exact["full-attention"] > 0.9 and exact["summary"] > 0.8
    assert exact["attention"] < 0.1 and all(row["majority"] < 0.1 for row in rows.values())
    assert [arm for arm, row in rows.items() if row["no_memory"]] == ["n1"] and rows["n1"]["no_memory"][0] < 0.1
    header = (tmp_path / "out" / "comparison.md").read_text().splitlines()[0]
    assert header.endswith("| no memory | majority | uniform |")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--arms", "bogus"], "--arms 'bogus' is unknown"),
        (["--arms", "n1", "sleep.n_passes=2"], "write those behind the YAML, before --arms"),
        (["--seeds", "0", "0", "--arms", "n1"], "different numbers from 0"),
        (["--jobs", "0", "--arms", "n1"], "--jobs 0 must be from 1 to 4096"),
        (["--test-passes", "0", "--arms", "n1"], "--test-passes 0 must be numbers of passes"),
    ],
)
def test_bad_input_ends_in_one_sentence(more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sleep_lightning.__main__ import main

    assert main(["compare", str(ROOT / "conf" / "rule110.yaml"), *more]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
