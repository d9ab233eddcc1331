"""Which sessions are in memory: within a byte budget, the longest unused go to disk first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sleep_lightning.session.atomic_write import partial_of
from sleep_lightning.session.core import SessionExpired
from sleep_lightning.session.session import SleepSession

SUFFIX, SNAPSHOT = ".safetensors", ".snapshot"
PATIENCE = 60.0
"""Seconds that a session waits for room while all others in memory are being worked on."""


NONE = "there is no such session; create one, or list yours"


class NoSession(ValueError):
    """There is no such session, or it is another owner's: which of both is not said."""


class NoRoom(OSError):
    """No session can be put aside: the disk is full, or all are being worked on."""

    def __str__(self) -> str:
        return str(self.strerror or super().__str__())


@dataclass(eq=False)
class Entry:
    """A session: in memory (``session``), in its file, or in both.

    All but ``name`` and ``folder`` belong to whoever holds the lock. ``gone``: it was deleted or has expired.
    ``holder``: the thread that uses it.
    """

    folder: Path
    name: str
    session: SleepSession | None = None
    expires_at: float | None = None
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    holder: int | None = None
    _saved: Any = None

    @contextmanager
    def by_this_thread(self) -> Iterator[None]:
        """Inside, it is known whose lock it is."""
        self.holder = threading.get_ident()
        try:
            yield
        finally:
            self.holder = None

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}{SUFFIX}"

    @property
    def snapshot(self) -> Path:
        return self.folder / f"{self.name}{SNAPSHOT}{SUFFIX}"

    def has(self, session: SleepSession) -> SleepSession:
        """It is in memory now."""
        self.session, self.expires_at = session, session.expires_at
        return session

    def save(self) -> None:
        """Bring the file up to date. Raises OSError; the file before is then intact, and the session in memory."""
        if self.session is None or self._saved == (now := _version(self.session)):
            return
        try:
            self.session.save(self.file)
            self._saved = now
        except SessionExpired:
            self.remove_files()

    def put_aside(self) -> None:
        """Save it for the last time: no idle sleep comes behind that. Raises OSError; it then sleeps on."""
        if self.session is None:
            return
        self.session.close()
        try:
            self.save()
        except BaseException:
            self.session._closed = False
            self.session._used()
            raise

    def remove_files(self) -> None:
        """Nothing of it stays on disk."""
        for file in (self.file, self.snapshot):
            file.unlink(missing_ok=True)
            partial_of(file).unlink(missing_ok=True)  # of a writer that was killed
        self.gone = True


def _version(session: SleepSession) -> tuple[int, dict[str, Any]]:
    """Differs whenever what is saved does; a state is never changed, but replaced."""
    return id(session._state), asdict(session.cost)


class Entries:
    """Sessions by owner and name, the longest unused first.

    Args:
        load: reads a session from its file.
        session_bytes: of each.
        max_bytes: of those in memory.

    Attributes:
        loads, evictions: so far.
    """

    def __init__(self, load: Callable[[Entry], SleepSession], session_bytes: int, max_bytes: int) -> None:
        self._load, self._each, self._most = load, session_bytes, max_bytes
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._in_memory = 0
        self._changed = threading.Condition()
        self.loads = self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._entries

    @property
    def in_memory(self) -> int:
        """Sessions in memory, and those that are being read."""
        return self._in_memory

    def names(self, owner: str) -> list[str]:
        with self._changed:
            return sorted(name for who, name in self._entries if who == owner)

    def all(self) -> list[Entry]:
        with self._changed:
            return list(self._entries.values())

    def add(self, entry: Entry) -> str:
        """One whose session, if it is in memory, has been ``reserved`` for. Returns its name."""
        with self._changed:
            self._entries[entry.folder.name, entry.name] = entry
        return entry.name

    def check(self, owner: str, name: str) -> None:
        """Raises NoSession."""
        with self._changed:
            if (owner, name) not in self._entries:
                raise NoSession(NONE)

    @contextmanager
    def held(self, owner: str, name: str) -> Iterator[Entry]:
        """An entry and its lock. Raises NoSession."""
        with self._changed:
            entry = self._entries.get((owner, name))
        if entry is not None:
            if entry.holder == threading.get_ident():
                raise ValueError("this thread uses that session already, and would wait for itself; use the one it has")
            with entry.lock, entry.by_this_thread():
                if not entry.gone:
                    try:
                        yield entry
                        return
                    except SessionExpired:
                        self.remove(entry)
                        raise
                    finally:
                        with self._changed:
                            if (owner, name) in self._entries:
                                self._entries.move_to_end((owner, name))
        raise NoSession(NONE)

    def loaded(self, entry: Entry) -> SleepSession:
        """The session of an entry that is held. Raises NoRoom; ValueError or OSError if its file cannot be read."""
        if entry.session is None:
            with self.reserved():
                session = entry.has(self._load(entry))
            self.loads += 1
            return session
        return entry.session

    def remove(self, entry: Entry) -> None:
        """Delete a session that is held, with its files."""
        entry.remove_files()
        self._drop(entry)

    def expire(self, now: float) -> None:
        """Delete what is past its time and not being worked on."""
        for entry in self.all():
            if entry.expires_at is not None and entry.expires_at <= now and entry.lock.acquire(blocking=False):
                try:
                    self.remove(entry)
                finally:
                    entry.lock.release()

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Room for a session that is made inside; others are written to disk for it. Raises NoRoom."""
        self._reserve()
        try:
            yield
        except BaseException:
            self._count(-1)
            raise

    def released(self) -> None:
        """A session is not used any more: who waits for room may look again."""
        self._count(0)

    def _count(self, more: int) -> None:
        with self._changed:
            self._in_memory += more
            self._changed.notify_all()

    def _drop(self, entry: Entry) -> None:
        if entry.session is not None:
            entry.session.close()
            entry.session, entry._saved = None, None
            self._count(-1)
        if entry.gone:
            with self._changed:
                self._entries.pop((entry.folder.name, entry.name), None)

    def _reserve(self) -> None:
        while True:
            with self._changed:
                if (self._in_memory + 1) * self._each <= self._most:
                    self._in_memory += 1
                    return
                victim = self._idle()
                if victim is None and not self._changed.wait(PATIENCE):
                    raise NoRoom(None, f"all {self._in_memory} sessions in memory are being worked on; give more bytes")
            if victim is not None:
                self._evict(victim)

    def _idle(self) -> Entry | None:
        """The longest unused that is in memory; its lock is ours."""
        for entry in self._entries.values():
            if entry.lock.acquire(blocking=False):
                if entry.session is not None:
                    return entry
                entry.lock.release()
        return None

    def _evict(self, entry: Entry) -> None:
        """To disk, then out of memory: never the other way round."""
        try:
            entry.put_aside()
            self._drop(entry)
            self.evictions += 1
        except OSError as error:
            reason = error.strerror or str(error)
            raise NoRoom(
                error.errno, f"no session can be put aside for this one ({reason}); free some space"
            ) from error
        finally:
            entry.lock.release()
