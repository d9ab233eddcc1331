"""A sweep that is refused before its first trial leaves nothing behind that was not there before."""

import os
from contextlib import suppress
from pathlib import Path

from sleep_lightning.config import sqlite_file
from sleep_lightning.runs.directory import OUTBOX
from sleep_lightning.sweep.folder import LOCK
from sleep_lightning.sweep.storage import JOURNAL
from sleep_lightning.sweep.study import OWNER_FILE


class NewFiles:
    """What a sweep is about to make in its folder before its first trial.

    Make it before the folder is locked, and use it while it is: another process may wait to begin there.

    Args:
        folder: of the sweep, which may not exist.
        url: of its storage; None: the journal in the folder.
    """

    def __init__(self, folder: Path, url: str | None) -> None:
        database = None if url is None else sqlite_file(url)
        own = [folder / name for name in (JOURNAL, OWNER_FILE, OUTBOX, LOCK)]
        if database is not None and folder.absolute() in database.parents:  # elsewhere others may have opened it
            own += [database, Path(f"{database}-wal"), Path(f"{database}-shm")]
        self._files = [path for path in own if not os.path.lexists(path)]
        self._folders = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]

    def remove(self) -> None:
        """Remove them as far as they were made, then the folders, unless others have put something there."""
        with suppress(OSError):  # the refusal is what counts
            for path in self._files:
                path.unlink(missing_ok=True)
            for path in self._folders:
                path.rmdir()
