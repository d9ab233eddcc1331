"""Folders whose names mean something in a URI: everything lies in them, and nothing beside them."""

from pathlib import Path
from unittest.mock import patch

import optuna
import pytest

from sleep_lightning.cli.doctor.stores import check_tracking
from sleep_lightning.config import TrackingConfig, anchored_uri, sqlite_file
from sleep_lightning.redaction import redact_uri
from sleep_lightning.sweep.storage import check_url, open_storage
from sleep_lightning.tracking.mlflow_logger import MLflowRun
from sleep_lightning.tracking.mlflow_store import check_reachable

NAMES = ["a #1", "b?x=1", "c%41", "50%", "d \u00e9", "e:f@g", "h::i", "j&k=l;m+n"]


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path: Path = tmp_path / request.param
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.mark.parametrize("folder", NAMES, indirect=True)
def test_a_file_is_named_by_a_uri_and_found_again(folder: Path) -> None:
    uri = anchored_uri("sqlite:///my.db")
    assert sqlite_file(uri) == folder / "my.db" and anchored_uri(uri) == uri == redact_uri(uri)
    assert check_url("sqlite:///my.db") == uri == check_url(uri)


@pytest.mark.parametrize("folder", NAMES, indirect=True)
def test_the_storage_of_a_sweep_lies_in_its_folder(folder: Path) -> None:
    study = optuna.create_study(storage=open_storage(check_url("sqlite:///s.db"), folder, to_write=True))
    study.ask()
    read = open_storage(check_url("sqlite:///s.db"), folder, to_write=False)
    assert len(optuna.load_study(study_name=study.study_name, storage=read).trials) == 1
    optuna.create_study(storage=open_storage(None, folder, to_write=True)).ask()
    assert {"s.db", "journal.log"} <= {path.name for path in folder.iterdir()}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.long
@pytest.mark.parametrize(
    "folder",
    ["a #1 \u00e9::x@y:z", *(pytest.param(name, marks=pytest.mark.slow) for name in ("b?x=1&y", "c%41"))],
    indirect=True,
)
def test_mlflow_writes_into_the_folder(folder: Path) -> None:
    uri = anchored_uri("sqlite:///mlflow.db")
    (folder / "picture.txt").write_text("x")
    run = MLflowRun(uri, "an experiment")
    run.log_artifact(folder / "picture.txt")
    run.end("FINISHED")
    again = MLflowRun(uri, "an experiment", run_id=run.run_id)
    again.log_artifact(folder / "picture.txt", "more")
    again.end("FINISHED")
    [finding] = check_tracking(TrackingConfig(uri=uri))
    assert finding.state == "ok", finding
    assert len(list((folder / "mlruns").rglob("picture.txt"))) == 2
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlruns", "picture.txt"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_port_that_is_none_is_an_error_of_the_store() -> None:
    with patch("socket.create_connection"), pytest.raises(OSError, match="Port could not be cast"):
        check_reachable("http://host:port")


def test_a_server_behind_a_proxy_is_left_to_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with patch("socket.create_connection", side_effect=OSError("unknown host")):
        with pytest.raises(OSError, match="unknown host"):
            check_reachable("http://inside:5000")
        monkeypatch.setenv("http_proxy", "http://proxy:3128")
        check_reachable("http://inside:5000")
        for away in ("https://inside", "postgresql://inside/mlflow"):
            with pytest.raises(OSError, match="unknown host"):
                check_reachable(away)
        monkeypatch.setenv("no_proxy", "inside")
        with pytest.raises(OSError, match="unknown host"):
            check_reachable("http://inside:5000")
