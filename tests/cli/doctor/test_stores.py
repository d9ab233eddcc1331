"""MLflow stores that cannot be reached, written or understood; folders whose locks do not hold."""

import errno
import fcntl
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sleep_lightning.cli.doctor import stores
from sleep_lightning.config import TrackingConfig
from tests.cli.doctor.rows import sole

Patch = pytest.MonkeyPatch


class Server(BaseHTTPRequestHandler):
    """As much of an MLflow server as is asked of it."""

    version = "3.13.0"

    def do_GET(self) -> None:
        self._answer(self.version)

    def do_POST(self) -> None:
        self._answer('{"experiments": [{"experiment_id": "0", "name": "Default", "lifecycle_stage": "active"}]}')

    def _answer(self, text: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(500 if self.version == "broken" else 200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


def test_off() -> None:
    assert sole(stores.check_tracking(TrackingConfig(enabled=False))).found.startswith("off")


def test_no_database_yet(tmp_path: Path) -> None:
    row = sole(stores.check_tracking(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")))
    assert row.state == "ok" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["/proc", "/no/such/folder"])
def test_database_that_cannot_be_made(folder: str) -> None:
    row = sole(stores.check_tracking(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")))
    assert row.state == "error" and folder in row.found and "folder" in row.remedy


def test_database_that_may_only_be_read(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(stores.os, "access", lambda file, how: False)  # root may write everything
    row = sole(stores.check_tracking(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")))
    assert row.state == "error" and "may only be read" in row.found


def test_database_that_another_process_holds(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(stores, "WAIT_S", 0.1)
    with sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        row = sole(stores.check_tracking(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")))
    assert row.state == "error" and "another process" in row.remedy


def test_database_of_another_version(tmp_path: Path, monkeypatch: Patch) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    def refuses(self: MlflowClient, max_results: int) -> None:
        raise MlflowException("Detected out-of-date database schema; run 'mlflow db upgrade <database_uri>'")

    monkeypatch.setattr(MlflowClient, "__init__", lambda self, uri: None)
    monkeypatch.setattr(MlflowClient, "search_experiments", refuses)
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    row = sole(stores.check_tracking(TrackingConfig(uri=uri)))
    assert row.state == "error" and row.remedy.endswith(f"mlflow db upgrade {uri}")


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_unreachable_server(scheme: str) -> None:
    row = sole(stores.check_tracking(TrackingConfig(uri=f"{scheme}://me:secret@127.0.0.1:9/mlflow")))
    assert row.state == "error" and "refused" in row.found and "start the server" in row.remedy
    assert "secret" not in row.found + row.remedy


@pytest.mark.parametrize(("version", "state"), [("3.13.0", "ok"), ("broken", "error")])
def test_server(version: str, state: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Server, "version", version)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://me:secret@127.0.0.1:{server.server_address[1]}"
        row = sole(stores.check_tracking(TrackingConfig(uri=uri)))
        server.shutdown()
    assert row.state == state, row
    assert "secret" not in row.found + row.remedy
    assert version == "broken" or "1 experiment" in row.found


def test_no_password_of_a_driver_is_shown(monkeypatch: Patch) -> None:
    def refuses(uri: str) -> str:
        raise OSError(f"{uri}: no entry for me with p@ss, sent as p%40ss")

    monkeypatch.setattr(stores, "_ask", refuses)
    row = sole(stores.check_tracking(TrackingConfig(uri="postgresql://me:p%40ss@db/mlflow")))
    assert row.found.endswith("OSError: postgresql://me:***@db/mlflow: no entry for me with ***, sent as ***")


def test_read_only() -> None:
    row = sole(stores.check_runs(Path("/proc/runs")))
    assert row.state == "error" and "chmod" in row.remedy


def test_locks_that_do_not_hold(tmp_path: Path, monkeypatch: Patch) -> None:
    assert sole(stores.check_runs(tmp_path)).state == "ok"
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    row = sole(stores.check_runs(tmp_path))
    assert row.state == "error" and "do not hold" in row.found

    def refuses(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    row = sole(stores.check_runs(tmp_path))
    assert row.state == "error" and "No locks available" in row.found
    assert not list(tmp_path.iterdir())
