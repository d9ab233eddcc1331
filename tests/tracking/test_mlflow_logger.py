import json
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from sleep_lightning.tracking.mlflow_logger import MLflowRun
from tests.cli.cli import environment


def open_run(tmp_path: Path, **kwargs: object) -> MLflowRun:
    return MLflowRun(f"sqlite:///{tmp_path}/mlflow.db", "e", spill=tmp_path / "spill.jsonl", **kwargs)  # type: ignore[arg-type]


def test_buffers_writes_continues_and_closes(tmp_path: Path) -> None:
    run = open_run(tmp_path, flush_seconds=1000)
    client = run._client
    run.log_hyperparams({"a": 1, "long": "x" * 9000})
    for step in range(2500):
        run.log_metrics({"loss": float(step)}, step)
    assert client.get_metric_history(run.run_id, "loss") == []  # nothing was written in the loop
    run.end("KILLED")
    assert len(client.get_metric_history(run.run_id, "loss")) == 2500
    assert client.get_run(run.run_id).info.status == "KILLED"
    again = open_run(tmp_path, run_id=run.run_id)
    assert client.get_run(run.run_id).info.status == "RUNNING"
    again.log_hyperparams({"a": 2, "b": 3})
    again.end("FINISHED")
    data = client.get_run(run.run_id).data
    assert data.params["a"] == "1"
    assert data.params["b"] == "3"
    assert data.tags["resumed.a"] == "2"
    assert "mlflow-writer" not in {t.name for t in threading.enumerate()}


def test_metrics_a_dead_store_refuses_are_spilled_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path, flush_seconds=1000)
    run.log_metrics({"loss": 1.5}, 3)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(run._client, "log_batch", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.end("FAILED")
    assert any("spill.jsonl" in str(w.message) for w in caught)
    [line] = (tmp_path / "spill.jsonl").read_text().splitlines()
    spilled = json.loads(line)
    assert (spilled["key"], spilled["value"], spilled["step"]) == ("loss", 1.5, 3)


def test_an_unknown_run_or_store_is_refused_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*, though the run is recorded in it"):
        open_run(tmp_path, run_id="0" * 32)
    open_run(tmp_path).end("FINISHED")
    with pytest.raises(ValueError, match=r"cannot be used"):
        open_run(tmp_path, run_id="0" * 32)
    with pytest.raises(ValueError, match=r"tracking\.uri=") as caught:
        MLflowRun("postgresql://me:s3cret@127.0.0.1:1/x", "e")
    assert "s3cret" not in str(caught.value)


@pytest.mark.slow
def test_processes_that_open_a_new_store_at_once_all_get_a_run(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from mlflow.tracking import MlflowClient; "
        "from sleep_lightning.tracking.mlflow_logger import MLflowRun; "
        "here = pathlib.Path('.'); (here / sys.argv[1]).touch(); "
        "exec('while len(list(here.glob(\"ready*\"))) < 4: time.sleep(0.001)'); "
        "MLflowRun('sqlite:///' + str(here.resolve() / 'mlflow.db'), 'together').end('FINISHED')"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen([*command, f"ready{i}"], cwd=tmp_path, env=environment()) for i in range(4)]
    assert [process.wait(240) for process in processes] == [0] * 4
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.get_experiment_by_name("together")
    assert len(client.search_runs([found.experiment_id])) == 4
