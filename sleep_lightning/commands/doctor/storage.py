"""Checks of where runs go: disk space, file locks, the MLflow store."""

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sleep_lightning.commands.doctor.finding import Finding, one_line

if TYPE_CHECKING:
    from sleep_lightning.config import TrackingConfig

FULL, NEARLY_FULL = 10**9, 5 * 10**9
"""Free bytes below which there is an error, a warning: a run of the paper's size keeps some 100 MB."""
NETWORK = ("nfs", "lustre", "cifs", "smb", "fuse.sshfs", "ceph", "beegfs", "gpfs", "9p")
LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock", "localflock")
"""Mount options with which a lock is not seen by other machines."""


def check_disk(runs: Path) -> Iterator[Finding]:
    """Free space where runs go."""
    folder = _existing(runs)
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free for {runs} (in {folder.absolute()})"
    if free >= NEARLY_FULL:
        yield Finding("disk", "ok", found)
    else:
        remedy = "delete old runs, or let training.run_dir (sweep, compare: --output) lie on another disk"
        yield Finding("disk", "error" if free < FULL else "warning", found, remedy)


def check_locks(runs: Path) -> Iterator[Finding]:
    """Whether files can be written where runs go, and whether a lock on one keeps a second holder out."""
    folder = _existing(runs)
    elsewhere = "let training.run_dir (sweep, compare: --output) lie on a local disk"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as first:
            held = _keeps_out(Path(first.name))
    except OSError as error:
        remedy = f"make it writable (chmod u+w {folder.absolute()}), or {elsewhere}"
        yield Finding("runs folder", "error", f"{folder.absolute()} cannot be used: {one_line(error)}", remedy)
        return
    kind, options = _mount(folder)
    found = f"{folder.absolute()} ({kind}) can be written"
    if not held:
        yield Finding("runs folder", "error", f"{found}, but file locks do not hold there", elsewhere)
    elif kind.startswith(NETWORK) and (local := [x for x in options if x in LOCAL_LOCKS]):
        remedy = f"run all processes of a sweep on one machine, or mount it without {local[0]}"
        yield Finding("runs folder", "warning", f"{found}, but locks hold on this machine only ({local[0]})", remedy)
    else:
        yield Finding("runs folder", "ok", f"{found}, file locks hold")


def _keeps_out(file: Path) -> bool:
    with file.open("a") as first, file.open("a") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _mount(folder: Path) -> tuple[str, list[str]]:
    """Kind and options of the file system a folder lies on."""
    import psutil

    place = folder.resolve()
    over = [one for one in psutil.disk_partitions(all=True) if place.is_relative_to(one.mountpoint)]
    if not over:
        return "unknown file system", []
    last = max(over, key=lambda one: len(Path(one.mountpoint).parts))
    return last.fstype, last.opts.split(",")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())


def check_tracking(tracking: "TrackingConfig | None") -> Iterator[Finding]:
    """Whether the MLflow store can be reached and, if it is a SQLite file, written. Leaves nothing behind.

    Args:
        tracking: None for the default keys.
    """
    from sleep_lightning.config import TrackingConfig, redact

    tracking = tracking or TrackingConfig()
    if not tracking.enabled:
        yield Finding("MLflow store", "ok", "off (tracking.enabled=false)")
        return
    uri, database = tracking.uri, _sqlite_file(tracking.uri)
    shown = f"tracking.uri={redact(uri)}"
    try:
        found = _ask_server(uri) if database is None else _try_database(database, uri)
    except Exception as error:  # of MLflow, a database driver, the network: each has its own
        reason = _without_password(one_line(error), uri)
        remedy = "start or repair the store, change tracking.uri, or set tracking.enabled=false"
        yield Finding("MLflow store", "error", f"{shown} cannot be used: {reason}", remedy)
    else:
        yield Finding("MLflow store", "ok", f"{shown}: {found}")


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, file = uri.partition(":///")
    return Path(file) if scheme.startswith("sqlite") else None


def _try_database(file: Path, uri: str) -> str:
    if not file.exists():
        if not file.absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {file.absolute().parent}")
        tempfile.TemporaryFile(dir=file.absolute().parent).close()
        return "will be made by the first run"
    if not os.access(file, os.W_OK):
        raise PermissionError(f"{file} may only be read")
    with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # as a writer begins
        connection.execute("ROLLBACK")
    return f"{_experiments(uri)}, can be written"


def _ask_server(uri: str) -> str:
    from sleep_lightning.tracking.mlflow_logger import check_reachable

    check_reachable(uri)
    return f"answers, {_experiments(uri)}"


def _experiments(uri: str) -> str:
    """What the store says of itself; MLflow raises if it is of another version or does not let us in."""
    import logging

    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store").setLevel(logging.WARNING)
    found = len(MlflowClient(uri).search_experiments(max_results=100))
    return f"{found}{' or more' if found == 100 else ''} experiments"


def _without_password(text: str, uri: str) -> str:
    from sleep_lightning.config import redact

    password = urlsplit(uri).password
    text = text.replace(uri, redact(uri))
    return text.replace(password, "***") if password else text
