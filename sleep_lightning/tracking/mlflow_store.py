"""MLflow's tracking store: opening it, what it raises, and whether it can be reached."""

import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sleep_lightning.config import sqlite_file
from sleep_lightning.machine.locks import open_lock, take
from sleep_lightning.machine.private import cache_directory
from sleep_lightning.machine.proxies import through_proxy

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

OPEN_SECONDS = 30.0
"""How long one waits for another process of this user that opens the same SQLite store."""


def open_client(uri: str) -> "MlflowClient":
    """MLflow's client of a store, whose folder must be there."""
    from mlflow.tracking import MlflowClient

    _quiet()
    return MlflowClient(_for_mlflow(uri))


def create_whole(uri: str) -> None:
    """Create the file of an SQLite store, if it is missing, under another name: MLflow never opens one again whose
    tables it could not complete, for want of space or because it was killed. To be called ``alone``.

    The file is its owner's alone: another user who can open it can lock it for ever.
    """
    file = sqlite_file(uri)
    if file is None or file.exists():
        return
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.engine import make_url

    partial = file.absolute().with_name(f".{file.name}.partial")
    place = _for_mlflow(make_url(uri).set(database=str(partial)).render_as_string(hide_password=False))
    _quiet()
    try:
        partial.unlink(missing_ok=True)
        SqlAlchemyStore(place, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
        partial.chmod(0o600)
        partial.replace(file)
    finally:
        if (engine := SqlAlchemyStore._engine_map.pop(place, None)) is not None:
            engine.dispose()  # else it keeps the space of a deleted file
        partial.unlink(missing_ok=True)


def _for_mlflow(uri: str) -> str:
    """MLflow would create the folder of sqlite:///... as it is written, with %3F for a question mark: a stray one."""
    named = "%" in uri and uri.startswith("sqlite:")
    return f"sqlite+pysqlite:{uri.removeprefix('sqlite:')}" if named else uri


def _quiet() -> None:
    """MLflow announces every table it creates, and prints errors that it raises."""
    logging.getLogger("mlflow.store").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Keep other processes of this user out while an SQLite store is opened: MLflow creates its tables without a lock.

    The lock lies in the user's cache: one beside the store, or on its folder, could be held by anybody.
    """
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    name = hashlib.sha256(os.fsencode(file.absolute().resolve())).hexdigest()[:32]
    with ExitStack() as stack:
        with suppress(OSError):  # no cache, no lock: opening may then have to be tried again
            folder = cache_directory() / "locks"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            take(stack.enter_context(open_lock(folder / f"{name}.lock")), seconds=OPEN_SECONDS)
        yield


def store_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a tracking store that cannot be reached or rejects a request."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ImportError  # the last: a database driver


def check_reachable(uri: str) -> None:
    """Raises OSError at once where MLflow and SQLAlchemy would retry for minutes."""
    if (file := sqlite_file(uri)) is not None:
        if not file.parent.is_dir():
            raise OSError(f"there is no folder {file.parent}")
        return
    ports = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or ports.get(parts.scheme.partition("+")[0])
    except ValueError as error:  # a port that is none
        raise OSError(str(error)) from error
    if parts.scheme in ("http", "https") and through_proxy(parts):
        return  # MLflow asks the proxy, which alone may reach the server
    if host is not None and port is not None:
        socket.create_connection((host, port), timeout=10).close()
