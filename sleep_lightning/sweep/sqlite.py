"""Connections to a SQLite file: of supervisors, which may all create it at once, and of those that only look."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from sleep_lightning.runs.backoff import Backoff

T = TypeVar("T")
BUSY_SECONDS = 30.0
"""Longest wait for another writer."""
CREATE_SECONDS = 30.0
"""Longest wait for others that create the tables: Optuna does so without a lock, and fails if it is not alone."""
_OTHERS_CREATE = ("already exists", "UNIQUE constraint failed", "database is locked", "no such table")


def connect_sqlite(path: str) -> sqlite3.Connection:
    """A connection that writes, with a write-ahead log: readers and the writer do not wait for each other.

    A new file is its owner's alone: another user who can open it can lock it for ever.
    """
    with suppress(OSError):  # it is there, or SQLite says what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def read_sqlite(path: str) -> sqlite3.Connection:
    """A connection that changes nothing, for files and folders that may only be read, too."""
    place = Path(path).absolute()
    # the index of a write-ahead log cannot be made in such a folder, and without a log there is nothing to index
    unchanging = not os.access(place.parent, os.W_OK, effective_ids=True) and not Path(f"{place}-wal").exists()
    uri = f"{place.as_uri()}?mode=ro{'&immutable=1' if unchanging else ''}"
    return sqlite3.connect(uri, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)


def begin_immediate(connection: Any) -> None:
    """Take the write lock at once: a transaction that reads and then writes fails if another has written in between."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def when_created(opened: Callable[[], T]) -> T:
    """A storage, opened again as long as others are creating its tables."""
    pauses = Backoff(CREATE_SECONDS, first=0.05, longest=1.0)
    while True:
        try:
            return opened()
        except (SQLAlchemyError, sqlite3.Error) as error:
            if not any(text in str(error) for text in _OTHERS_CREATE) or pauses.over:
                raise
        time.sleep(pauses.next())
