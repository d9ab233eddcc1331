"""Where a sweep's trials are kept: a journal in its folder, PostgreSQL, or SQLite with immediate transactions."""

import os
import sqlite3
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sleep_lightning.config import anchored_uri, read_yaml, sqlite_file
from sleep_lightning.redaction import one_line, redact_uri
from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.files import end_of_lines
from sleep_lightning.runs.space import DiskFull
from sleep_lightning.sweep.retrying_storage import RetryingJournal, RetryingStorage, SweepJournal
from sleep_lightning.sweep.sqlite import begin_immediate, connect_sqlite, read_sqlite, when_created

JOURNAL = "journal.log"
REMEDY = "restore it from a copy, or start again under another name or in another --output"
"""For a damaged journal."""
SPEC = "sweep.yaml"
POSTGRESQL, SQLITE = "postgresql+psycopg", "sqlite"
CONNECT = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Of PostgreSQL: seconds after which a silent server counts as unreachable."""


def check_url(url: str) -> str:
    """A storage's URL, with an absolute path of its file. Raises ValueError: unknown kind, or it holds a password."""
    try:
        parts = make_url(url)
    except ArgumentError:
        parts = None
    if parts is None or parts.drivername not in (POSTGRESQL, SQLITE) or (parts.drivername == SQLITE and parts.host):
        raise ValueError(
            f"storage={redact_uri(url)!r} is neither {POSTGRESQL}://user@host/database nor sqlite:///file.db; "
            f"or use null: a journal in the sweep's folder"
        )
    if parts.password is not None or redact_uri(url) != url:
        raise ValueError(
            f"storage={_shown(parts)!r} holds a password, which would be saved with the sweep; leave it out and give "
            f"it in the variable PGPASSWORD or the file ~/.pgpass"
        )
    if parts.drivername == SQLITE and parts.database in (None, "", ":memory:"):
        raise ValueError(f"storage={url!r} names no file; write for example sqlite:///sweep.db")
    return anchored_uri(parts.render_as_string(hide_password=False))


def saved_url(folder: Path) -> str | None:
    """The storage in the spec saved in a sweep's folder; None: the journal there."""
    url = _saved(folder, "storage")
    return None if url is None else anchored_uri(url, folder)  # a file in the folder moves with it


def url_to_save(url: str | None, folder: Path) -> str | None:
    """A storage's URL as it is saved in a sweep's folder: a file in it by its path from there."""
    file = None if url is None else sqlite_file(url)
    if url is None or file is None or not file.is_relative_to(folder.absolute()):
        return url
    inside = str(file.relative_to(folder.absolute()))
    return make_url(url).set(database=inside).render_as_string(hide_password=False)


def saved_name(folder: Path) -> str | None:
    """The name of the sweep whose spec was saved in a folder, if one was."""
    return _saved(folder, "name")


def saved_spec(folder: Path) -> dict[str, Any]:
    """The spec saved in a sweep's folder, as YAML reads it; empty if none was. Raises ValueError: it is damaged."""
    if not (folder / SPEC).is_file():
        return {}
    content, _ = read_yaml(folder / SPEC, str(folder / SPEC), "run the sweep's own YAML again")
    return content if isinstance(content, dict) else {}


def _saved(folder: Path, key: str) -> str | None:
    value = saved_spec(folder).get(key)
    if not isinstance(value, str | None):
        raise ValueError(f"{folder / SPEC}: {key}={value!r} must be text; run the sweep's own YAML again")
    return value


def is_sweep(folder: Path) -> bool:
    """Whether it is a sweep's folder."""
    try:
        return (folder / JOURNAL).is_file() or saved_url(folder) is not None
    except ValueError:  # a damaged spec: those that read it say so
        return True


def open_storage(url: str | None, folder: Path, *, to_write: bool) -> BaseStorage:
    """The storage with the trials of a sweep.

    Args:
        url: as ``check_url`` leaves it; None: the journal in the folder.
        folder: of the sweep.
        to_write: for its supervisor: created if missing, with retries; else read-only.

    Raises:
        ValueError: it is damaged, cannot be reached, or needs a package that is not installed.
        OSError: the journal cannot be read or written.
    """
    if url is None:
        return _open_journal(folder / JOURNAL, to_write)
    parts = make_url(url)
    if parts.drivername == SQLITE and not to_write and not Path(str(parts.database)).exists():
        raise ValueError(
            f"storage={url!r} is missing: there is no such file; restore it, or name its new place: "
            f"sweep resume {folder} storage=sqlite:///FILE"
        )
    engine: dict[str, Any] = {"pool_pre_ping": True, "connect_args": CONNECT}
    if parts.drivername == SQLITE:
        connect = connect_sqlite if to_write else read_sqlite
        engine = {"creator": lambda: connect(str(parts.database))}
    try:
        if to_write:
            storage: RDBStorage = when_created(lambda: RetryingStorage(url, _shown(parts), engine))
        else:
            storage = RDBStorage(url, engine, skip_table_creation=True)
    except ImportError as error:
        raise ValueError(
            f"storage={_shown(parts)!r} needs psycopg, which is missing; run: pip install 'psycopg[binary]>=3.2,<4'"
        ) from error
    except (SQLAlchemyError, OptunaError, sqlite3.Error, RuntimeError) as error:
        if parts.drivername == SQLITE and (full := DiskFull.of_sqlite(str(parts.database), error)):
            what = f"storage={_shown(parts)!r}: {full.what}"
            raise ValueError(f"{what}; free some space and repeat the command") from error
        fix = "that it is there, the user, and the password (PGPASSWORD or ~/.pgpass)"
        if parts.drivername == SQLITE:
            fix = "the file, and the permissions of it and of its folder"
        raise ValueError(f"storage={_shown(parts)!r} cannot be used: {_cause(error)}; check {fix}") from error
    if parts.drivername == SQLITE and to_write:
        event.listen(storage.engine, "begin", begin_immediate)
    return storage


def drop_torn_line(journal: Path) -> None:
    """Truncate after the last newline: half a record, left by a killed writer, breaks every reader."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        if (whole := end_of_lines(file)) < os.fstat(file.fileno()).st_size:
            file.truncate(whole)
            os.fsync(file.fileno())


def _open_journal(journal: Path, to_write: bool) -> JournalStorage:
    if to_write:
        drop_torn_line(journal)
    try:
        return SweepJournal(RetryingJournal(str(journal)))
    except OSError:
        raise
    except Exception as error:  # a line of it is not a record of Optuna's, which then fails somewhere
        raise DamagedFile(journal, f"{type(error).__name__}: {error}", REMEDY) from error


def _shown(parts: URL) -> str:
    return redact_uri(parts.render_as_string(hide_password=False))


def _cause(error: Exception) -> str:
    """The database's own message, on one line."""
    known = getattr(error, "orig", None) or error.__cause__ or error
    return one_line(getattr(known, "orig", None) or known) or type(known).__name__
