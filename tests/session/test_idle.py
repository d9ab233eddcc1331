"""Sleeping while idle: no token and no pass is lost, and whoever has something to read waits for one pass at most."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleep_lightning.session import AuditLine, NoRoom, SessionPool, SleepSession, state_file
from sleep_lightning.session import idle as idle_module
from sleep_lightning.session import pool as pool_module
from sleep_lightning.session import session as session_module
from sleep_lightning.session.batch import own
from sleep_lightning.session.idle import IdleSleeper
from sleep_lightning.session.provenance import Read
from sleep_lightning.session.state import SessionState
from sleep_lightning.session.window import OpenWindow
from tests.session.conftest import L, bits, same, tiny_session


class Gate:
    """Lets the passes of a model through one by one."""

    def __init__(self, session: SleepSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        for name in ("blocks", "write"):
            monkeypatch.setattr(session.model, name, self._held(getattr(session.model, name)))

    def _held(self, run: Any) -> Any:
        def held(*args: Any, **options: Any) -> Any:
            self.begun.release()
            assert self.go_on.acquire(timeout=20)
            return run(*args, **options)

        return held


@pytest.fixture(autouse=True)
def sleeper(monkeypatch: pytest.MonkeyPatch) -> IdleSleeper:
    """With no session of another test."""
    monkeypatch.setattr(session_module, "SLEEPER", sleeper := IdleSleeper())
    return sleeper


@pytest.fixture
def idle() -> Iterator[SleepSession]:
    session = tiny_session(sleep={"n_passes": 5}, policy="idle", idle_after=0.05, keep_texts=True)
    yield session
    session.close()


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def replayed(session: SleepSession) -> dict[str, Any]:
    """What the kept texts say, read again in one thread."""
    other = session.fork()
    other._state = SessionState.fresh(session.model, session.config)
    for event in session._state.events:
        other._state = other._reader.replay(other._state, event, sleeps=True)
    return bits(other)


def test_a_window_is_closed_as_it_stands(idle: SleepSession) -> None:
    by_hand = SleepSession(idle.model, idle.config)
    for session in (idle, by_hand):
        session.append([1, 2, 3])
    wait_for(lambda: idle.windows_closed)
    by_hand.sleep()
    assert same(bits(idle), bits(by_hand)) and idle.provenance()[0].n_passes == 5
    time.sleep(0.2)
    assert idle.windows_closed == 1, "there is nothing more to sleep on"
    idle.append([4])
    wait_for(lambda: idle.windows_closed == 2)


def test_a_full_window_does_not_wait(idle: SleepSession) -> None:
    idle.append([1] * L)
    assert idle.windows_closed == 1


@pytest.mark.parametrize("passes", [2, 3, 4])
def test_it_makes_way_at_the_boundary_of_a_pass(
    idle: SleepSession, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    """Passes that were made count, and are paid; those that were not are not."""
    idle.append([1, 2, 3])
    gate = Gate(idle, monkeypatch)
    for _ in range(2, passes):
        assert gate.begun.acquire(timeout=20)
        gate.go_on.release()
    assert gate.begun.acquire(timeout=20)  # the last pass of those that are made has begun
    appending = threading.Thread(target=idle.append, args=([7, 8],))
    appending.start()
    wait_for(lambda: idle._waiting)
    assert appending.is_alive() and idle.windows_closed == 0
    gate.go_on.release()
    appending.join(20)
    assert not gate.begun.acquire(blocking=False)
    monkeypatch.undo()
    (line,) = idle.provenance()
    assert line.n_passes == passes and idle.window_fill == 2 and idle.cost.sleep.tokens == 3 * (passes - 1)
    assert same(bits(idle), replayed(idle))
    idle.close()


def test_what_only_looks_does_not_cut_it_short(idle: SleepSession, monkeypatch: pytest.MonkeyPatch) -> None:
    idle.append([1, 2, 3])
    gate = Gate(idle, monkeypatch)
    assert gate.begun.acquire(timeout=20)
    looking = threading.Thread(target=idle.provenance)
    looking.start()
    gate.go_on.release(4)
    looking.join(20)
    assert not looking.is_alive()
    monkeypatch.undo()
    assert idle.provenance()[0].n_passes == 5


@pytest.mark.parametrize("loop", ["all", "1/2/1"])
@pytest.mark.parametrize("eviction", ["hard", "sliding"])
def test_no_token_and_no_pass_is_lost(loop: str, eviction: str) -> None:
    """Whenever sleeping is interrupted: the events, replayed in one thread, give the state to the bit."""
    sleep = {"n_passes": 6, "loop": loop, "eviction": eviction}
    session = tiny_session(sleep=sleep, policy="idle", idle_after=0.0, keep_texts=True)
    read: list[int] = []
    for i in range(25):
        piece = [(i * j) % 11 for j in range(1, 1 + i % 4)]
        session.append(piece)
        read += piece
        time.sleep((i % 5) * 0.004)
    session.close()
    events = [e for e in session._state.events if isinstance(e, Read)]
    assert [t for e in events for t in e.tokens] == read and session.tokens_seen == len(read)
    lines = session.provenance()
    assert sum(line.tokens for line in lines) + session.window_fill == len(read)
    assert session.cost.sleep.tokens == sum(line.tokens * (line.n_passes - 1) for line in lines)
    assert session.cost.wake.tokens == len(read)
    assert same(bits(session), replayed(session))


def test_the_thread_ends_with_the_sessions(sleeper: IdleSleeper) -> None:
    """One for all of them, whether they are gone before they have slept or not."""
    sessions = [tiny_session(policy="idle", idle_after=after) for after in (2.0, 2.0, 0.01)]
    assert sleeper._thread is None, "nothing is to be slept on"
    threads = set()
    for session in sessions:
        session.append([1])
        threads.add(sleeper._thread)
    gone = [weakref.ref(session) for session in sessions]
    (thread,) = threads
    assert thread is not None
    wait_for(lambda: sessions[2].windows_closed)
    del session
    sessions.clear()
    wait_for(lambda: gc.collect() is not None and not any(one() for one in gone))
    thread.join(20)
    assert not thread.is_alive() and sleeper._thread is None


@pytest.mark.parametrize("way", ["fork", "load", "rollback"])
def test_a_window_that_came_with_the_session_is_closed(way: str, tmp_path: Path) -> None:
    origin = tiny_session(policy="idle", idle_after=600.0)
    origin.append([1, 2, 3])
    origin.idle_after = 0.01
    if way == "fork":
        session = origin.fork()
    elif way == "load":
        origin.save(tmp_path / "x")
        session = SleepSession.load(tmp_path / "x", origin.model, idle_after=0.01)
    else:
        session = SleepSession(origin.model, origin.config, policy="idle", idle_after=0.01)
        session.rollback(origin.snapshot())
    wait_for(lambda: session.windows_closed == 1)


def test_it_waits_from_the_end_of_an_answer(idle: SleepSession) -> None:
    tokens = idle.generate(2, prompt=[1])
    next(tokens)
    ending = time.monotonic()
    list(tokens)
    assert idle.last_use >= ending


def test_it_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(idle_module, "PAUSE", 0.01)
    failed: list[AuditLine] = []

    def audit(line: AuditLine) -> None:
        if line.method == "sleep" and len(failed) < 2:
            failed.append(line)
            raise OSError("no space")

    session = tiny_session(policy="idle", idle_after=0.01, audit=audit)
    session.append([1])
    wait_for(lambda: session.windows_closed)
    assert len(failed) == 2 and caplog.text.count("could not sleep: OSError: no space") == 2


def test_sessions_of_a_pool_sleep_and_end_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that was put aside sleeps once it is back; none sleeps after the pool is closed."""
    one = tiny_session()
    with SessionPool(one.model, one.config, one.nbytes, tmp_path, policy="idle") as pool:
        name = pool.create("a")
        with pool.use("a", name) as session:
            session.append([1, 2, 3])
        pool.create("a")
        with pool.use("a", name) as session:
            assert (session.window_fill, session.windows_closed) == (3, 0)
        wait_for(lambda: session.windows_closed)
        with pool.use("a", name) as session:
            session.idle_after = 0.2
            session.append([4])
    time.sleep(0.3)
    assert session.window_fill == 1 and not caplog.records


def test_one_that_cannot_be_put_aside_sleeps_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tiny_session()
    with SessionPool(one.model, one.config, one.nbytes, tmp_path, policy="idle") as pool:
        name = pool.create("a")
        with pool.use("a", name) as session:
            session.append([1, 2, 3])
        with monkeypatch.context() as patch:
            patch.setattr(state_file, "write_whole", lambda *_: (_ for _ in ()).throw(OSError("full")))
            with pytest.raises(NoRoom):
                pool.create("a")
        wait_for(lambda: session.windows_closed)


def test_what_is_lent_is_given_back_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle sleep in the middle of giving it back: the window that it closed stays closed."""
    one = tiny_session()
    with SessionPool(one.model, one.config, 10**7, tmp_path, policy="idle") as pool:
        name = pool.create("a")

        def own_slowly(window: OpenWindow) -> OpenWindow:
            session.idle_after = 0.0
            thread = threading.Thread(target=session._sleep_idly)
            thread.start()
            thread.join(20)
            session.idle_after = 600.0
            return own(window)

        with pool.use("a", name) as session:
            session.idle_after = 600.0
            for token in range(3):  # one by one: rows of a batch
                session.append([token])
            monkeypatch.setattr(pool_module, "own", own_slowly)
        monkeypatch.undo()
        assert (session.window_fill, session.windows_closed) in ((3, 0), (0, 1))
        assert sum(n for _, n in session._state.sources) == session.window_fill
        pool.restore("a", pool.export("a", name))


def test_nothing_sleeps_while_an_answer_is_made(idle: SleepSession) -> None:
    tokens = idle.generate(3, prompt=[1])
    next(tokens)
    time.sleep(0.2)
    assert idle.windows_closed == 0
    list(tokens)
    wait_for(lambda: idle.windows_closed)
