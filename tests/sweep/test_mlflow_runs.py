"""Runs taken from a file of records are in MLflow like those that were trained, each once."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.directory import OUTBOX, RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.mlflow_runs import RunImport
from sleep_lightning.sweep.records import Records
from sleep_lightning.sweep.report.rows import read_summaries
from sleep_lightning.sweep.trial import run_path
from sleep_lightning.tracking.importing import IMPORTED, metrics_of
from sleep_lightning.tracking.mlflow_frontier import FRONTIER
from tests.cli.cli import ROOT

EXACT = {1: 0.25, 2: 0.75}
"""Of each N."""
SPEC = f"""
name: recorded
base: {ROOT}/conf/depo.yaml
space: {{sleep.n_passes: {{choices: {list(EXACT)}}}}}
sampler: grid
budget: {{trials: 2}}
"""


def recorded(folder: Path, n_passes: int) -> FitProcess:
    """A finished run of the sweep's, trained elsewhere."""
    overrides = [f"sleep.n_passes={n_passes}", f"training.run_dir={folder}"]
    run = FitProcess(load_experiment(ROOT / "conf" / "depo.yaml", overrides), RunDirectory(folder))
    folder.mkdir(parents=True)
    rows = [
        {
            "step": step,
            "cost/train_flops": 1e6 * step,
            "exact_match": exact,
            "majority_exact_match": 0.125,
            "answers": 64,
        }
        for step, exact in ((50, 0.1), (100, EXACT[n_passes]))
    ]
    run.directory.history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {"exact_match": EXACT[n_passes], "token_accuracy": 0.5, "loss": 1.0, "train_flops": 1e8, "wall_s": 7.0}
    more = {"steps": 100, "answers": 64, "majority_baseline": 0.125, "uniform_baseline": 0.0625}
    more |= {"environment": {"git_commit": "c0ffee-dirty", "machine": "elsewhere"}, "metrics": {"val/hop_1/loss": 0.5}}
    run.directory.summary.write_text(json.dumps({"status": "FINISHED"} | scores | more))
    run.directory.record_experiment(run.experiment)
    return run


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a sweep whose runs are all recorded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    Path("sweep.yaml").write_text(SPEC)
    records = Records(Path("records.jsonl"))
    assert all(records.add(recorded(tmp_path / "elsewhere" / str(n), n)) for n in EXACT)
    shutil.rmtree("elsewhere")
    return ["sweep", "run", "sweep.yaml", "--output", "here", "--records", "records.jsonl"]


def client_here() -> MlflowClient:
    """Of the store in the current directory; MLflow keeps stores open by their URI."""
    return MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")


def children(client: MlflowClient) -> list[Run]:
    """The runs below the sweep's, without that of its lines."""
    found = client.search_runs(["1"])
    [parent] = [run for run in found if run.info.run_name == "recorded"]
    below = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return sorted((run for run in below if FRONTIER not in run.data.tags), key=lambda run: str(run.info.run_name))


def test_recorded_runs_are_in_mlflow_once(sweep: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(sweep) == 0
    assert "MLflow: recording 2 finished runs that it lacks" in capsys.readouterr().err
    client = client_here()
    found = children(client)
    assert [run.info.run_name for run in found] == ["0000-seed0", "0001-seed0"]
    for n, run in zip(EXACT, found, strict=True):
        assert run.info.status == "FINISHED" and run.data.params["sleep.n_passes"] == str(n)
        metrics, tags = run.data.metrics, run.data.tags
        assert (metrics["val/exact_match"], metrics["cost/log10_train_flops"]) == (EXACT[n], 8)
        assert (metrics["val/majority_exact_match"], metrics["val/uniform_exact_match"]) == (0.125, 0.0625)
        assert not {"cost/wall_s", "val/hop_1/loss"} & metrics.keys(), "their charts would be single points"
        curve = client.get_metric_history(run.info.run_id, "val/exact_match")
        assert [(point.step, point.value) for point in curve] == [(50, 0.1), (100, EXACT[n])]
        assert (tags[IMPORTED], tags["environment.machine"]) == ("records.jsonl", "elsewhere")
        assert tags["mlflow.source.git.commit"] == "c0ffee" and "records.jsonl" in tags["mlflow.note.content"]
        assert len({run.data.tags["mlflow.runColor"] for run in found}) == 2, "the charts have them"
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"config.yaml", "summary.json"}
        assert read_summaries(Path("here"), n - 1, [0])[0]["mlflow_run_id"] == run.info.run_id, "reports link it"
    assert not list(Path().rglob(f"*{OUTBOX}*")), "all is sent"
    assert main(sweep) == 0
    assert "recording" not in capsys.readouterr().err
    assert [run.info.run_id for run in children(client)] == [run.info.run_id for run in found]


def test_what_was_trained_without_tracking_comes_in_when_the_sweep_is_resumed_with_it(sweep: list[str]) -> None:
    Path("sweep.yaml").write_text(SPEC + "overrides: [tracking.enabled=false]\n")
    assert main(sweep) == 0
    assert not Path("mlflow.db").exists()
    assert main(["sweep", "resume", "here", "tracking.enabled=true"]) == 0
    assert len(children(client_here())) == 2


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A sweep's run without an MLflow run."""
    monkeypatch.chdir(tmp_path)
    return recorded(run_path(Path("here"), 0, 0), 1).directory


def test_a_store_that_is_away_gets_the_runs_later(here: RunDirectory) -> None:
    unrecorded = RunImport(Path("here"), load_experiment(None, ["tracking.uri=sqlite:///gone/mlflow.db"]).tracking)
    assert unrecorded.queue("0" * 32) == 1
    with pytest.warns(UserWarning, match=r"MLflow lacks finished runs: .*; send them: .* tracking sync here") as caught:
        unrecorded.send()
    unrecorded.send()  # says nothing
    assert len(caught) == 1, "one sentence for an outage"
    assert RunImport(Path("here"), unrecorded.tracking).queue("0" * 32) == 0, "it is written once"
    assert main(["tracking", "sync", "here", "--uri", "sqlite:///mlflow.db"]) == 0
    [run] = client_here().search_runs(["1"])
    assert run.info.run_id == here.mlflow_run_id and run.data.tags["mlflow.parentRunId"] == "0" * 32
    assert run.data.metrics["val/exact_match"] == EXACT[1]
    assert not list(Path().rglob(f"*{OUTBOX}*"))


def test_a_damaged_run_is_left_out_with_a_sentence(here: RunDirectory) -> None:
    here.config.write_text("nonsense: [")
    with pytest.warns(UserWarning, match=r"0000-seed0 will not be in MLflow: here/.*/config.yaml is damaged"):
        assert RunImport(Path("here"), load_experiment().tracking).queue("0" * 32) == 0
    assert not list(Path().rglob(f"*{OUTBOX}*"))


def test_results_without_validations_are_a_point() -> None:
    summary = {"exact_match": 0.5, "token_accuracy": 0.5, "loss": 1.0, "train_flops": 0, "wall_s": 1.0, "steps": 3}
    [(step, metrics)] = metrics_of(summary, [])
    assert step == 3 and metrics["val/exact_match"] == 0.5 and "cost/log10_train_flops" not in metrics
    [(_, kept)] = metrics_of(summary, [], keep={"cost/wall_s"})
    assert kept == metrics | {"cost/wall_s": 1.0}
