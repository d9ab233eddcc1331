"""What a run has to tell MLflow, on disk until MLflow has it: a crash or an outage loses none of it."""

import errno
import json
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sleep_lightning.machine.locks import open_private, take
from sleep_lightning.redaction import redact
from sleep_lightning.runs.files import append_whole

Entry = dict[str, Any]
"""One of ``metrics`` (with ``step`` and ``time``), ``params``, ``tags``, ``dataset`` (with ``context``), ``artifact``
(with ``folder``) and ``end``."""


class Outbox:
    """Entries in the order in which they are sent.

    A line of the file is an entry, how many of the entries before it are sent (``sent``), or where to (``store``).
    Threads may share it.

    Args:
        path: of the file; None: in memory alone.
        store: for a new file: ``uri`` without its password, ``experiment`` and ``name`` of the run; references to the
            environment as they were written.
        wait: seconds to wait for another process that has it.

    Raises:
        BlockingIOError: another process has it.
    """

    def __init__(self, path: Path | None = None, store: dict[str, Any] | None = None, wait: float = 0.0) -> None:
        self.path = path
        self.store = {key: value and redact(value) for key, value in (store or {}).items()}
        self.pending: list[Entry] = []
        self.ended = False
        self._logged: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._mutex = threading.Lock()
        self._said = False
        self._file: int | None = None
        self._unwritten: list[Entry] = []  # for want of space, or new
        if path is not None:
            try:
                self._file = _open_locked(path, wait)
            except BlockingIOError:
                raise
            except OSError as error:
                self._say(error)
            else:
                self._read(path)

    @property
    def folder(self) -> Path:
        """What the paths of artifacts are relative to."""
        return Path() if self.path is None else self.path.parent

    def _read(self, path: Path) -> None:
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]  # what follows was cut off by a crash
        for entry in _parsed(whole):
            if "store" in entry:
                self.store = entry["store"]
            elif "sent" in entry:
                del self.pending[: entry["sent"]]
            else:
                self._take(entry)
        self._before = dict(self._logged)
        if len(whole) < len(text):
            os.truncate(path, len(whole))
        if not whole:
            self._write({"store": self.store})

    def _take(self, entry: Entry) -> None:
        self.pending.append(entry)
        self.ended = "end" in entry or ("artifact" in entry and self.ended)
        if "metrics" in entry:
            self._logged |= dict.fromkeys(entry["metrics"], entry["step"])

    def add(self, entry: Entry) -> None:
        """Append an entry, without secrets; of metrics, those that no process before this one has logged at that step
        or a later one."""
        for kind in entry.keys() & {"params", "tags", "dataset"}:
            entry = entry | {kind: {key: redact(value) for key, value in entry[kind].items()}}
        with self._mutex:
            if "metrics" in entry:
                metrics, step = entry["metrics"], entry["step"]
                new = {key: value for key, value in metrics.items() if step > self._before.get(key, -1)}
                if not new:
                    return
                entry = entry | {"metrics": new}
            self._take(entry)
            self._write(entry)

    def next(self, most: int) -> list[Entry]:
        """The entries to be sent next: one, or several of metrics with at most so many values in all."""
        with self._mutex:
            size = count = 0
            for entry in self.pending:
                count += len(entry.get("metrics", ()))
                if "metrics" not in entry or count > most:
                    break
                size += 1
            return self.pending[: max(size, 1)]

    def sent(self, entries: int) -> None:
        """The first so many are in the store."""
        with self._mutex:
            del self.pending[:entries]
            self._write({"sent": entries})

    @property
    def whole(self) -> bool:
        """Whether all that is to be sent is on disk."""
        return self._file is not None and not self._unwritten

    def close(self) -> None:
        """Release the file, which goes if the run has ended and all is sent."""
        with self._mutex:
            if self._file is None or self.path is None:
                return
            if self.ended and not self.pending:
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _write(self, entry: Entry) -> None:
        if self._file is None:
            return
        self._unwritten.append(entry)
        text = "".join(json.dumps(one) + "\n" for one in self._unwritten)
        try:
            append_whole(self._file, text.encode())
        except OSError as error:  # a full disk: written with the next entry for which there is room
            self._say(error)
        else:
            self._unwritten.clear()

    def _say(self, error: OSError) -> None:
        if not self._said:
            self._said = True
            reason = error.strerror or str(error)
            text = f"{self.path} cannot be written ({reason}): what MLflow lacks is in memory alone"
            warnings.warn(text, stacklevel=5)


def _open_locked(path: Path, seconds: float) -> int:
    file = open_private(path)
    if not take(file, seconds=seconds):
        os.close(file)
        raise BlockingIOError(errno.EAGAIN, "another process has it", str(path))
    return file


def _parsed(text: bytes) -> Iterator[Entry]:
    for line in text.splitlines():
        with suppress(ValueError):  # damaged: the rest is still worth sending
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry
