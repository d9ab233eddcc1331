import errno
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.runs.directory import OUTBOX, RunDirectory
from sleep_lightning.tracking import mlflow_logger, outbox
from sleep_lightning.tracking.mlflow_logger import MLflowRun, sync_command
from sleep_lightning.tracking.outbox import Outbox
from tests.cli.cli import environment


def open_run(tmp_path: Path, **kwargs: object) -> MLflowRun:
    return MLflowRun(f"sqlite:///{tmp_path}/mlflow.db", "e", outbox=tmp_path / OUTBOX, **kwargs)  # type: ignore[arg-type]


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


def refuse(*args: object, **kwargs: object) -> None:
    raise OSError("disk full")


def test_a_store_that_does_not_answer_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_logger, "PATIENCE", 0.2)
    run = open_run(tmp_path, flush_seconds=1000)
    client, answer = run._client, threading.Event()
    assert client is not None
    sent = client.log_batch

    def slow(*args: object, **kwargs: object) -> None:
        answer.wait(30)
        sent(*args, **kwargs)

    monkeypatch.setattr(client, "log_batch", slow)
    run.log_metrics({"loss": 1.5}, 3)
    threading.Thread(target=run._flush, name="mlflow-sender").start()  # as the writer does, with a request of its own
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run.flush() == 1 and run._silent
        with run.held():
            run.finish("FINISHED")
        assert run.close() == 2
    assert time.monotonic() - start < 10
    said = [str(one.message) for one in caught]
    assert len(said) == 2 and said[0].endswith("no answer in 0 s") and "MLflow lacks 2 entries" in said[1], said
    answer.set()
    monkeypatch.setattr(mlflow_logger, "PATIENCE", 30.0)  # from here on the store answers, on a busy disk too
    for thread in threading.enumerate():
        if thread.name == "mlflow-sender":
            thread.join(30)
    assert client.get_run(run.version).info.status == "RUNNING", "what is released is another process's to send"
    again = open_run(tmp_path, run_id=run.run_id)
    assert again.close() == 0
    assert client.get_run(run.version).info.status == "FINISHED"
    assert values(again, "loss") == [(3, 1.5)], "it had arrived, and arrives once"


def test_a_slow_store_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_logger, "PATIENCE", 1.5)
    run = open_run(tmp_path, flush_seconds=1000)
    client = run._client
    assert client is not None
    sent = client.log_batch
    monkeypatch.setattr(client, "log_batch", lambda *a, **k: (time.sleep(0.25), sent(*a, **k)))
    for tag in range(8):
        run.set_tags({f"t{tag}": "x"})
    assert run.close() == 0


def values(run: MLflowRun, key: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return [(m.step, m.value) for m in MlflowClient(run.uri).get_metric_history(run.version, key)]


def test_what_a_store_does_not_take_is_kept_and_sent_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path, flush_seconds=1000)
    client = run._client
    assert client is not None
    run.log_metrics({"loss": 1.5}, 3)
    (tmp_path / "a.txt").write_text("x")
    run.log_artifact(tmp_path / "a.txt")
    run.set_tags({"of": "the run"})
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(client, "log_batch", refuse)
        assert run.flush() == 3 and run.flush() == 3
        run.end("FAILED")
    said = [str(w.message) for w in caught]
    assert len(said) == 2, said  # once for the outage, once at the end
    assert "kept and sent later: OSError: disk full" in said[0]
    assert said[1].endswith(f"MLflow lacks 4 entries of this run; send it: {sync_command(tmp_path)}")
    RunDirectory(tmp_path).record_mlflow_run(run.version)
    assert values(run, "loss") == []
    assert main(["tracking", "sync", str(tmp_path)]) == 0
    assert values(run, "loss") == [(3, 1.5)]
    found = client.get_run(run.version)
    assert found.info.status == "FAILED" and found.data.tags["of"] == "the run"
    assert [file.path for file in client.list_artifacts(run.version)] == ["a.txt"]
    assert not (tmp_path / OUTBOX).exists()
    assert main(["tracking", "sync", str(tmp_path)]) == 0  # nothing to send
    assert values(run, "loss") == [(3, 1.5)]


def test_a_file_that_is_sent_after_the_end_leaves_the_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path, flush_seconds=1000)
    client = run._client
    assert client is not None
    (tmp_path / "console.log").write_text("x")
    (tmp_path / "gone.txt").write_text("x")
    with monkeypatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setattr(client, "log_artifact", refuse)
        run.finish("FINISHED")
        run.log_artifact(tmp_path / "gone.txt")
        run.log_artifact(tmp_path / "console.log")
        assert run.close() == 2
    assert client.get_run(run.version).info.status == "FINISHED"
    (tmp_path / "gone.txt").unlink()
    RunDirectory(tmp_path).record_mlflow_run(run.version)
    with pytest.warns(UserWarning, match="does not get .*gone.txt, which is no longer there"):
        assert main(["tracking", "sync", str(tmp_path)]) == 0
    assert client.get_run(run.version).info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.version)] == ["console.log"]
    assert not (tmp_path / OUTBOX).exists()


def test_a_run_resumed_while_a_file_is_unsent_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path, flush_seconds=1000)
    client = run._client
    assert client is not None
    (tmp_path / "console.log").write_text("x")
    with monkeypatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setattr(client, "log_artifact", refuse)
        run.finish("KILLED")
        run.log_artifact(tmp_path / "console.log")
        run.close()
    again = open_run(tmp_path, run_id=run.run_id, flush_seconds=1000)
    again.log_metrics({"loss": 1.0}, 1)
    again.flush()
    assert client.get_run(run.version).info.status == "RUNNING"
    again.end("FINISHED")
    assert client.get_run(run.version).info.status == "FINISHED"


def test_after_kill_9_nothing_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    run = open_run(tmp_path, flush_seconds=1000)
    for step in (1, 2, 3):
        run.log_metrics({"loss": float(step)}, step)
    run.flush()
    run.log_metrics({"loss": 4.0}, 4)
    killed = (tmp_path / OUTBOX).read_bytes() + b'{"metrics": {"lo'  # it ended in the middle of a line
    run._stop.set()
    (tmp_path / OUTBOX).unlink()
    (tmp_path / OUTBOX).write_bytes(killed)
    again = open_run(tmp_path, run_id=run.run_id, flush_seconds=1000)
    for step in (3, 4, 5):  # resumes from step 2
        again.log_metrics({"loss": float(step), "new": 0.0}, step)
    again.end("FINISHED")
    assert values(again, "loss") == [(step, float(step)) for step in (1, 2, 3, 4, 5)]
    assert values(again, "new") == [(3, 0.0), (4, 0.0), (5, 0.0)]


def test_a_store_that_is_not_required_may_come_later(tmp_path: Path) -> None:
    store, there = tmp_path / "later" / "mlflow.db", list[str]()
    with pytest.warns(UserWarning, match="kept and sent later: .*there is no folder"):
        run = MLflowRun(f"sqlite:///{store}", "e", outbox=tmp_path / OUTBOX, required=False, opened=there.append)
    assert run.run_id is None and run.version == ""
    run.log_hyperparams({"a": 1})
    run.log_metrics({"loss": 1.0}, 1)
    store.parent.mkdir()
    assert run.flush() == 0
    assert there == [run.run_id]
    store.unlink()  # and goes again: what follows is not written to a deleted file
    run.log_metrics({"loss": 2.0}, 2)
    with pytest.warns(UserWarning, match="there is no file .* any more"):
        assert run.flush() == 1
    with pytest.warns(UserWarning, match="MLflow lacks 2 entries"):
        run.end("FINISHED")


def test_what_is_invalid_is_dropped_and_holds_nothing_up(tmp_path: Path) -> None:
    run = open_run(tmp_path, flush_seconds=1000)
    run.log_metrics({"a good one": 1.0}, 1)
    run.log_metrics({"a bad one?": 1.0}, 1)
    run.log_metrics({"a good one": 2.0}, 2)
    with pytest.warns(UserWarning, match=r"MLflow rejects a bad one\?: "):
        assert run.flush() == 0
    run.end("FINISHED")
    assert values(run, "a good one") == [(1, 1.0), (2, 2.0)]


def test_an_outbox_on_a_full_disk_is_whole_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(tmp_path / OUTBOX, {"uri": "x"})
    box.add({"metrics": {"a": 1.0}, "step": 1, "time": 0})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(outbox.os, "write", lambda file, text: write(file, text[:3]))
        with pytest.warns(UserWarning, match="cannot be written"):
            box.add({"metrics": {"a": 2.0}, "step": 2, "time": 0})
        box.sent(1)
    box.add({"metrics": {"a": 3.0}, "step": 3, "time": 0})
    box.close()
    read = Outbox(tmp_path / OUTBOX)
    assert [entry["step"] for entry in read.pending] == [2, 3]
    assert read.store == {"uri": "x"}
    read.add({"metrics": {"a": 3.0}, "step": 3, "time": 0})
    assert len(read.pending) == 2
    with pytest.raises(BlockingIOError):
        Outbox(tmp_path / OUTBOX)
    assert main(["tracking", "sync", str(tmp_path)]) == 0  # says that it is running
    read.close()
    assert main(["tracking", "sync", str(tmp_path), "--uri", "postgresql://me:s3cret@127.0.0.1:1/x"]) == 2


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


def test_a_store_is_created_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow could never open one again that lacks some of its tables."""

    def fills_up(self: object, uri: str, place: str) -> None:
        (tmp_path / Path(uri).name).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.__init__", fills_up)
        with pytest.raises(ValueError, match=r"mlflow\.db cannot be written: No space left on device \(needs a "):
            open_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [OUTBOX]
