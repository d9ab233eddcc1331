"""Checks of the stores: MLflow's, and the folder with the runs and the journals of sweeps."""

import fcntl
import os
import shlex
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.cli.doctor.finding import Finding, one_line
from sleep_lightning.redaction import redact_uri

if TYPE_CHECKING:
    from sleep_lightning.config import TrackingConfig

WAIT_S = 10.0
"""Seconds a database may be locked, or a server silent."""


def check_runs(runs: Path) -> Iterator[Finding]:
    """Whether runs and journals can be written, and whether a file lock keeps a second holder out."""
    folder = next(one for one in (runs.absolute(), *runs.absolute().parents) if one.is_dir())
    local = "set training.run_dir (sweep: --output)"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as first, open(first.name) as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield Finding("runs folder", "ok", f"{folder} can be written, file locks hold")
    except OSError as error:
        remedy = f"make it writable (chmod u+w {shlex.quote(str(folder))}), or {local}"
        yield Finding("runs folder", "error", f"{folder} cannot be used: {one_line(error)}", remedy)
    else:
        found = f"{folder} can be written, but file locks do not hold there"
        yield Finding("runs folder", "error", found, f"{local} to a local disk")


def check_tracking(tracking: "TrackingConfig | None") -> Iterator[Finding]:
    """Whether MLflow's store can be reached, read and, if it is a SQLite file, written. Leaves nothing behind."""
    from sleep_lightning.config import TrackingConfig

    tracking = tracking or TrackingConfig()
    if not tracking.mlflow:
        why = "tracking.loggers has no mlflow" if tracking.enabled else "tracking.enabled=false"
        yield Finding("MLflow store", "ok", f"off ({why})")
        return
    shown = redact_uri(tracking.uri)
    try:
        yield Finding("MLflow store", "ok", f"tracking.uri={shown}: {_ask(tracking.uri)}")
    except Exception as error:  # MLflow, database drivers and the network each have their own
        reason = one_line(error)
        found = f"tracking.uri={shown} cannot be used: {reason}"
        yield Finding("MLflow store", "error", found, _remedy(reason, shown))


def _ask(uri: str) -> str:
    """What is in the store; MLflow raises if it is of another version or does not let us in."""
    from sleep_lightning.config import sqlite_file
    from sleep_lightning.tracking.mlflow_store import check_reachable, open_client

    check_reachable(uri)
    if (file := sqlite_file(uri)) is not None:
        if not file.exists():
            with tempfile.TemporaryFile(dir=file.absolute().parent):
                return "the first run will make it"
        if not os.access(file, os.W_OK):
            raise PermissionError(f"{file} may only be read")
        with closing(sqlite3.connect(file, timeout=WAIT_S, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # as a writer begins
    before = dict(os.environ)  # MLflow would ask a server that answers with errors again for minutes
    os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT=f"{WAIT_S:.0f}")
    try:
        found = len(open_client(uri).search_experiments(max_results=100))
    finally:
        os.environ.clear()
        os.environ.update(before)
    number = f"{found} {'experiment' if found == 1 else 'experiments'}{' or more' if found == 100 else ''}"
    return f"answers, {number}" + ("" if file is None else ", can be written")


def _remedy(reason: str, uri: str) -> str:
    otherwise = "set another tracking.uri, or tracking.enabled=false"
    if "db upgrade" in reason:
        return f"keep a copy of the database, then: mlflow db upgrade {shlex.quote(uri)}"
    if "locked" in reason:
        return f"another process holds the database: wait for it, or {otherwise}"
    if uri.startswith("sqlite"):
        return f"make the folder, or make it writable, or {otherwise}"
    return f"start the server (mlflow server), check host and password, or {otherwise}"
