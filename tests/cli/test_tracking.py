"""Tracking is a side service: whatever MLflow does, a training ends well, and what MLflow lacks is sent later."""

import csv
import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from sleep_lightning.__main__ import main
from sleep_lightning.cli import tracking_sync
from sleep_lightning.cli.doctor.stores import check_tracking
from sleep_lightning.cli.sweep import SweepJob, _open_tracking
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.directory import OUTBOX, RunDirectory
from tests.cli.cli import fit_arguments
from tests.sweep.sweeps import small_sweep


def test_artifacts_that_cannot_be_written_end_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlruns").write_text("in the way")
    with pytest.warns(UserWarning, match="MLflow lacks 5 entries of this run; send it: .* tracking sync run"):
        assert main(fit_arguments("run", 2)) == 0
    run, client = RunDirectory(Path("run")), MlflowClient("sqlite:///mlflow.db")
    assert run.mlflow_run_id is not None
    found = client.get_run(run.mlflow_run_id)
    assert found.info.status == "FINISHED" and "val/exact_match" in found.data.metrics  # files hold nothing else up
    Path("mlruns").unlink()
    assert main(["tracking", "sync", "."]) == 0
    assert "run: sent" in capsys.readouterr().out
    files = {file.path for file in client.list_artifacts(run.mlflow_run_id)}
    assert files == {"config.yaml", "summary.json", "console.log", "checkpoints", "learning_curve.png"}
    assert not (run.path / OUTBOX).exists()
    assert main(["tracking", "sync", "nowhere"]) == 2
    assert "tracking sync nowhere: there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(("middle", "code"), [(ValueError("c is away"), 2), (3, 1), (0, 0)])
def test_a_store_that_is_away_keeps_no_other_waiting(
    middle: object, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {"a": 0, "b": middle, "c": 0}

    def send(place: Path, uri: str | None) -> object:
        if isinstance(end := ends[place.name], ValueError):
            raise end
        return end

    monkeypatch.setattr(tracking_sync, "send", send)
    monkeypatch.setattr(tracking_sync, "outboxes", lambda folder: [folder])
    assert tracking_sync.sync([Path(name) for name in ends], None) == code
    assert "c: sent" in capsys.readouterr().out


def test_a_store_may_come_after_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("later").write_text("no folder yet")
    late = ["tracking.uri=sqlite:///later/mlflow.db", "tracking.required=false"]
    assert main(fit_arguments("refused", 2, late[0])) == 2
    with pytest.warns(UserWarning, match="MLflow lacks"):
        assert main(fit_arguments("run", 2, *late)) == 0
    assert main(["tracking", "sync", "run"]) == 2
    Path("later").unlink()
    Path("later").mkdir()
    assert main(["tracking", "sync", "run"]) == 0
    run_id = RunDirectory(Path("run")).mlflow_run_id
    assert run_id is not None
    found = MlflowClient("sqlite:///later/mlflow.db").get_run(run_id)
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert "val/exact_match" in found.data.metrics and found.data.params["training.max_steps"] == "2"


def test_every_logger_gets_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loggers = "tracking.loggers=[mlflow,csv,{class_path: lightning.pytorch.loggers.TensorBoardLogger}]"
    assert main(fit_arguments("run", 10, loggers)) == 0
    run_id = RunDirectory(Path("run")).mlflow_run_id
    assert run_id is not None
    [table] = Path("run").rglob("metrics.csv")
    with table.open() as file:
        header = next(csv.reader(file))
    metrics = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(run_id).data.metrics
    assert set(header) - {"step"} == metrics.keys() - {"step"} and "cost/predicted_train_flops" in header
    [events] = Path("run").rglob("events.out.tfevents.*")
    assert all(name.encode() in events.read_bytes() for name in metrics)


def test_a_name_from_the_environment_is_kept_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHO", "my-value-of-who")
    monkeypatch.setenv("MY_TOKEN", "tok-3n-of-mine")
    names = ["tracking.run_name=${oc.env:WHO}", "tracking.experiment=${oc.env:MY_TOKEN}"]
    late = ["tracking.uri=sqlite:///later/mlflow.db", "tracking.required=false", *names]
    with pytest.warns(UserWarning, match="MLflow lacks"):
        assert main(fit_arguments("run", 2, *late)) == 0
    assert "MLflow      no run yet, as the store could not be reached; send it: " in capsys.readouterr().out
    for file in (path for path in Path("run").rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert b"my-value-of-who" not in content and b"tok-3n-of-mine" not in content, file
    assert json.loads((Path("run") / OUTBOX).read_text().splitlines()[0])["store"]["name"] == "${oc.env:WHO}"
    Path("later").mkdir()
    monkeypatch.delenv("WHO")
    assert main(["tracking", "sync", "run"]) == 2
    assert "saved as a reference to the variable WHO; set that" in capsys.readouterr().err
    monkeypatch.setenv("WHO", "my-value-of-who")
    assert main(["tracking", "sync", "run"]) == 0
    client, run_id = MlflowClient(f"sqlite:///{tmp_path}/later/mlflow.db"), RunDirectory(Path("run")).mlflow_run_id
    assert run_id is not None
    found = client.get_run(run_id)
    assert found.info.run_name == "my-value-of-who"
    assert client.get_experiment(found.info.experiment_id).name == "***", "a token leaves under no name"


def test_what_is_recorded_in_mlflow_is_said_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for loggers, recorded in {
        "[csv]": False,
        "[{class_path: mlflow}]": True,
        "[csv, mlflow]": True,
        "[]": False,
    }.items():
        tracking = load_experiment(None, [f"tracking.loggers={loggers}"]).tracking
        assert tracking.mlflow is recorded
        [finding] = check_tracking(tracking)
        assert finding.found.startswith("tracking.uri=" if recorded else "off (tracking.loggers has no mlflow)")
        sweep = small_sweep()
        sweep.base.tracking = tracking
        folder = tmp_path / loggers
        folder.mkdir()
        run = _open_tracking(SweepJob(sweep, folder, None))
        assert (run is not None) is recorded
        if run is not None:
            run.end("FINISHED")
    assert not load_experiment(None, ["tracking.enabled=false"]).tracking.mlflow


def test_the_environment_says_where_unless_the_experiment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_experiment().tracking.uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    tracking = load_experiment().tracking
    assert (tracking.uri, tracking.experiment) == ("http://127.0.0.1:5000", "mine")
    tracking = load_experiment(None, ["tracking.uri=sqlite:///x.db", "tracking.experiment=theirs"]).tracking
    assert (tracking.uri, tracking.experiment) == ("sqlite:///x.db", "theirs")
