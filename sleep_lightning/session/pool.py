"""Many sessions of one model: what they ask at once is computed together, and what does not fit waits on disk."""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import IO, Any, TypeVar

from sleep_lightning.formatting import in_bytes
from sleep_lightning.machine.locks import open_lock, take
from sleep_lightning.model import HybridLM
from sleep_lightning.session.atomic_write import partial_of
from sleep_lightning.session.audit import Audit, audit_of
from sleep_lightning.session.batch import own
from sleep_lightning.session.batching import BatchingEngine
from sleep_lightning.session.codec import Tokenizer
from sleep_lightning.session.core import Policy
from sleep_lightning.session.lru import SUFFIX, Entries, Entry
from sleep_lightning.session.session import SleepSession
from sleep_lightning.session.state_file import read_expiry, read_state
from sleep_lightning.session.write_policy import WritePolicy
from sleep_lightning.sleep import SleepConfig

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCK = ".lock"
"""No owner has this name."""
_NAME = re.compile(r"[0-9a-f]{32}")
_LEFT = re.compile(r"(?P<session>NAME)\.snapshot\.safetensors|\.?NAME[a-z.]*\.partial".replace("NAME", _NAME.pattern))
"""A snapshot, or what was half written."""
OF_EACH = ("n_passes", "tolerance")
"""Keys of sleep in which sessions of a pool that took over a directory may differ."""
_T = TypeVar("_T")


class SessionPool:
    """Sessions by owner and name. All methods may be called from several threads; one session serves one at a time.

    ``use`` lends a session: what it is asked inside is computed together with what others are asked then. A session
    that is not used is written to its file when others need its room, the longest unused first, and is read when it is
    used again: it goes on where it was.

    Args:
        model: of all sessions; its weights must not change.
        sleep_config: of all sessions.
        max_bytes: of the sessions in memory (``session_bytes`` each); a forward takes that of its rows again.
        directory: of files, ``OWNER/NAME.safetensors``, for its owner alone; sessions that lie there are taken over.
        tokenizer: for text.
        policy, audit, clock: of new sessions, as of ``SleepSession``; their ``id`` is their name here.
        max_batch: sessions that share a forward, at most.

    Attributes:
        session_bytes: ``SleepSession.nbytes``, of each.

    Raises:
        ValueError: room for not even one session, a directory that another process uses, or what ``SleepSession`` does.
        OSError: the directory cannot be written.
    """

    def __init__(
        self,
        model: HybridLM,
        sleep_config: SleepConfig,
        max_bytes: int,
        directory: str | PathLike[str],
        *,
        tokenizer: Tokenizer | None = None,
        policy: Policy = "on_full",
        audit: Audit | str | PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
        max_batch: int = 64,
    ) -> None:
        fresh = SleepSession(model, sleep_config, tokenizer, policy=policy)
        self.model, self.config, self.tokenizer, self.policy = model, fresh.config, fresh.tokenizer, policy
        self._audit, self._clock = audit_of(audit), clock
        self.session_bytes, self.max_bytes, self.directory = fresh.nbytes, max_bytes, Path(directory)
        if max_bytes < self.session_bytes:
            raise ValueError(
                f"max_bytes={max_bytes} has no room for a session, which takes {in_bytes(self.session_bytes)}; give at "
                f"least {self.session_bytes}"
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (earlier := self.directory / "lock").is_file():  # of a version that kept an owner from having this name
            with self._held(earlier):
                earlier.unlink()
        self._lock = self._held(self.directory / LOCK)
        self._remove_what_was_left()
        self.engine = BatchingEngine(model, self.config, max_batch)
        self._threads = ThreadPoolExecutor(max_batch, "session")
        self.entries = Entries(self._load, self.session_bytes, max_bytes)
        for file in sorted(self.directory.glob(f"*/*{SUFFIX}"), key=lambda file: file.stat().st_mtime):
            owner, name = file.parent.name, file.name.removesuffix(SUFFIX)
            if OWNER.fullmatch(owner) and _NAME.fullmatch(name):
                self.entries.add(Entry(file.parent, name, expires_at=read_expiry(file)))
        self.expire()

    # Sessions

    def create(
        self,
        owner: str,
        *,
        writes: WritePolicy | Mapping[str, int] | None = None,
        keep_texts: bool = False,
        ttl: float | None = None,
    ) -> str:
        """A new session; arguments as of ``SleepSession``. Returns its name, which cannot be guessed.

        Raises:
            ValueError: a bad owner or argument.
            NoRoom: no other session can be put aside.
        """
        entry = self._new(owner)
        with self.entries.reserved():
            session = SleepSession(
                self.model,
                self.config,
                self.tokenizer,
                policy=self.policy,
                writes=writes,
                keep_texts=keep_texts,
                ttl=ttl,
                audit=self._audit,
                clock=self._clock,
            )
            entry.has(self._engaged(session, entry.name))
        return self.entries.add(entry)

    def names(self, owner: str) -> list[str]:
        """Names of an owner's sessions."""
        return self.entries.names(owner)

    @contextmanager
    def use(self, owner: str, name: str) -> Iterator[SleepSession]:
        """Lend a session to this thread, which waits for others that use it.

        Raises:
            NoSession: the owner has none of that name.
            NoRoom: it lies on disk, and no other can be put there.
            ValueError: its file is damaged, or of another model.
        """
        with self._loaded(owner, name) as (_, session):
            try:
                with self.engine.member():
                    yield session
            finally:
                with session._lock:  # an idle sleep may change the state
                    if (window := own(session._state.window)) is not session._state.window:
                        session._state = replace(session._state, window=window)

    def map(self, owner: str, names: Sequence[str], f: Callable[[SleepSession], _T]) -> list[_T]:
        """``f`` of sessions, up to ``max_batch`` at a time, sharing forwards. Raises the first error."""

        def run(name: str) -> _T:
            with self.use(owner, name) as session:
                return f(session)

        return list(self._threads.map(run, names))

    def fork(self, owner: str, name: str) -> str:
        """Another session of the owner with the same past; it lies on disk until it is used."""
        entry = self._new(owner)
        with self._loaded(owner, name) as (_, session):
            fork = session.fork()
            fork.id, entry.expires_at = entry.name, fork.expires_at
            fork.save(entry.file)
        return self.entries.add(entry)

    def snapshot(self, owner: str, name: str) -> None:
        """Keep the session as it is, on disk, for ``rollback``; the snapshot before is replaced."""
        with self._loaded(owner, name) as (entry, session):
            session.save(entry.snapshot)

    def rollback(self, owner: str, name: str) -> None:
        """Back to the snapshot. Raises ValueError if there is none."""
        with self._loaded(owner, name) as (entry, session):
            if not entry.snapshot.exists():
                raise ValueError("there is no snapshot to go back to; take one before what may have to be undone")
            before = SleepSession.load(entry.snapshot, self.model, clock=self._clock)
            session.rollback(before.snapshot())

    def forget(self, owner: str, name: str, source: str) -> int:
        """``SleepSession.forget``, in the files too: the snapshot is given up."""
        with self._loaded(owner, name) as (entry, session):
            forgotten = session.forget(source)
            entry.snapshot.unlink(missing_ok=True)
            entry.save()
            return forgotten

    def reset(self, owner: str, name: str) -> None:
        """Forget everything, in the files too."""
        with self._loaded(owner, name) as (entry, session):
            session.reset()
            entry.snapshot.unlink(missing_ok=True)
            entry.save()

    def delete(self, owner: str, name: str) -> None:
        """Remove a session and its files."""
        with self.entries.held(owner, name) as entry:
            self.entries.remove(entry)

    def export(self, owner: str, name: str) -> bytes:
        """The file that ``SleepSession.save`` writes."""
        with self._loaded(owner, name) as (entry, session):
            session.save(entry.file)
            return entry.file.read_bytes()

    def restore(self, owner: str, content: bytes, check: Callable[[SleepSession], None] | None = None) -> str:
        """A new session from what ``export`` gave, which anybody may have changed.

        Args:
            owner: of the session.
            content: of the file.
            check: called with the session before it is kept; what it raises refuses it.

        Raises:
            SessionExpired: it has expired.
            ValueError: it is something else, or begun with another configuration (but for N and ``tolerance``).
        """
        entry = self._new(owner)
        partial = partial_of(entry.file)
        try:
            partial.touch(0o600)
            partial.write_bytes(content)
            header, _ = read_state(partial)
            self._check_alike(header.get("sleep"))  # before what it asks for is allocated
            session = SleepSession.load(partial, self.model, audit=self._audit, clock=self._clock)
            if check is not None:
                check(session)
            entry.expires_at = session.expires_at
            partial.replace(entry.file)
        except ValueError as error:
            error.args = (str(error).replace(str(partial), "the state"),)
            raise
        finally:
            partial.unlink(missing_ok=True)
        return self.entries.add(entry)

    # The whole

    def expire(self) -> None:
        """Delete sessions that are past their ttl, with their files."""
        self.entries.expire(self._clock())

    def save(self) -> None:
        """Write all sessions that have changed. Raises the first OSError, once all have been tried."""
        failed: OSError | None = None
        for entry in self.entries.all():
            with entry.lock:
                try:
                    entry.save()
                    if entry.gone:
                        self.entries.remove(entry)
                except OSError as error:
                    failed = failed or error
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Save all sessions and let go of the directory. Raises OSError as ``save`` does, and is then open still."""
        if self._lock.closed:
            return
        self.save()
        for entry in self.entries.all():
            with entry.lock:
                entry.put_aside()
        self._threads.shutdown()
        self.engine.shut_down()
        self._lock.close()

    def __enter__(self) -> "SessionPool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Inside

    def _remove_what_was_left(self) -> None:
        """By a process that was killed: snapshots without a session, and what was half written."""
        for file in self.directory.glob("*/*"):
            left = _LEFT.fullmatch(file.name) if OWNER.fullmatch(file.parent.name) else None
            if left and not (left["session"] and file.with_name(left["session"] + SUFFIX).exists()):
                file.unlink(missing_ok=True)

    def _held(self, path: Path) -> IO[str]:
        if take(lock := open_lock(path)):
            return lock
        lock.close()
        raise ValueError(f"{self.directory} is used by another process; give a directory of its own, or end that")

    def _new(self, owner: str) -> Entry:
        if not OWNER.fullmatch(owner):
            raise ValueError(f"owner={owner!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
        (folder := self.directory / owner).mkdir(mode=0o700, exist_ok=True)
        return Entry(folder, secrets.token_hex(16))

    def _engaged(self, session: SleepSession, name: str) -> SleepSession:
        session.id, session._reader.engine = name, self.engine
        return session

    def _load(self, entry: Entry) -> SleepSession:
        session = SleepSession.load(entry.file, self.model, self.tokenizer, audit=self._audit, clock=self._clock)
        self._check_alike(asdict(session.config))
        return self._engaged(session, entry.name)

    def _check_alike(self, theirs: Any) -> None:
        """Raises ValueError for the ``sleep`` of a session that cannot be one of this pool."""
        theirs, ours = theirs if isinstance(theirs, dict) else {}, asdict(self.config)
        if other := [key for key in ours if key not in OF_EACH and theirs.get(key) != ours[key]]:
            said = ", ".join(f"sleep.{key}={str(theirs.get(key))[:20]} and not {ours[key]}" for key in other)
            raise ValueError(f"the session was begun with {said}, and a pool's sessions sleep alike; begin another")

    @contextmanager
    def _loaded(self, owner: str, name: str) -> Iterator[tuple[Entry, SleepSession]]:
        try:
            with self.entries.held(owner, name) as entry:
                yield entry, self.entries.loaded(entry)
        finally:
            self.entries.released()
