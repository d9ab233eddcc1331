"""Check of the MLflow store that runs are recorded in."""

import importlib.metadata
import logging
import os
import shlex
import sqlite3
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sleep_lightning.cli.doctor.finding import Finding, one_line

if TYPE_CHECKING:
    from sleep_lightning.config import TrackingConfig

WAIT_S = 10.0
"""Seconds a database may be locked, or a server silent."""


def check_tracking(tracking: "TrackingConfig | None") -> Iterator[Finding]:
    """Whether the store can be reached and understood and, if it is a SQLite file, written. Leaves nothing behind.

    Args:
        tracking: None for the default keys.
    """
    from sleep_lightning.config import TrackingConfig, redact

    tracking = tracking or TrackingConfig()
    if not tracking.enabled:
        yield Finding("MLflow store", "ok", "off (tracking.enabled=false)")
        return
    uri = tracking.uri
    shown, database = f"tracking.uri={redact(uri)}", _sqlite_file(uri)
    try:
        found = _ask_store(uri) if database is None else _try_database(database, uri)
        version = _server_version(uri)
    except Exception as error:  # of MLflow, a database driver, the network: each has its own
        reason = _without_password(one_line(error), uri)
        yield Finding("MLflow store", "error", f"{shown} cannot be used: {reason}", _remedy(reason, redact(uri)))
        return
    ours = importlib.metadata.version("mlflow")
    if version and version.partition(".")[0] != ours.partition(".")[0]:
        remedy = f"run a server of MLflow {ours.partition('.')[0]}: {ours} is installed here"
        yield Finding("MLflow store", "warning", f"{shown}: {found}, but the server is MLflow {version}", remedy)
    else:
        yield Finding("MLflow store", "ok", f"{shown}: {found}" + (f", MLflow {version}" if version else ""))


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, file = uri.partition(":///")
    return Path(file) if scheme.startswith("sqlite") else None


def _try_database(file: Path, uri: str) -> str:
    if not file.exists():
        folder = file.absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        with tempfile.TemporaryFile(dir=folder):
            return "the first run will make it"
    if not os.access(file, os.W_OK):
        raise PermissionError(f"{file} may only be read")
    with closing(sqlite3.connect(file, timeout=WAIT_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # as a writer begins
        connection.execute("ROLLBACK")
    return f"{_experiments(uri)}, can be written"


def _ask_store(uri: str) -> str:
    from sleep_lightning.tracking.mlflow_logger import check_reachable

    check_reachable(uri)
    # MLflow would ask a server that answers with errors again for minutes
    patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{WAIT_S:.0f}"}
    before = {name: os.environ.get(name) for name in patience}
    os.environ.update(patience)
    try:
        return f"answers, {_experiments(uri)}"
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _experiments(uri: str) -> str:
    """What is in the store; MLflow raises if it is of another version or does not let us in."""
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store").setLevel(logging.WARNING)
    found = len(MlflowClient(uri).search_experiments(max_results=100))
    return f"{found} {'experiment' if found == 1 else 'experiments'}{' or more' if found == 100 else ''}"


def _server_version(uri: str) -> str:
    """MLflow's version at a server that tells it to anyone; else ""."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    page = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/version")
    try:
        with urllib.request.urlopen(page.geturl(), timeout=WAIT_S) as answer:
            version = answer.read(40).decode().strip()
    except (OSError, ValueError, HTTPException):
        return ""
    return version if version[:1].isdigit() else ""


def _remedy(reason: str, uri: str) -> str:
    otherwise = "set another tracking.uri, or tracking.enabled=false"
    if "db upgrade" in reason:
        return f"keep a copy of the database, then: mlflow db upgrade {shlex.quote(uri)}"
    if "locked" in reason:
        return f"another process holds the database: wait for it, or {otherwise}"
    if uri.startswith("sqlite"):
        return f"make the folder, or let it be written, or {otherwise}"
    return f"start the server (mlflow server), check host and password, or {otherwise}"


def _without_password(text: str, uri: str) -> str:
    from sleep_lightning.config import redact

    text, password = text.replace(uri, redact(uri)), urlsplit(uri).password
    for secret in (password, unquote(password)) if password else ():  # drivers show it as they please
        text = text.replace(secret, "***")
    return text
