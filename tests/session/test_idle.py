"""Sleeping while idle: no token and no pass is lost, and whoever has something to read waits for one pass at most."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from sleep_lightning.session import SleepSession
from sleep_lightning.session.provenance import Read
from sleep_lightning.session.state import SessionState
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
    time.sleep(0.05)
    events = [e for e in session._state.events if isinstance(e, Read)]
    assert [t for e in events for t in e.tokens] == read and session.tokens_seen == len(read)
    lines = session.provenance()
    assert sum(line.tokens for line in lines) + session.window_fill == len(read)
    assert session.cost.sleep.tokens == sum(line.tokens * (line.n_passes - 1) for line in lines)
    assert session.cost.wake.tokens == len(read)
    assert same(bits(session), replayed(session))


def test_the_thread_ends_with_the_session() -> None:
    sessions = [tiny_session(policy="idle", idle_after=0.01)]
    sessions[0].append([1])
    assert sessions[0]._idle is not None
    thread, gone = sessions[0]._idle._thread, weakref.ref(sessions[0])
    wait_for(lambda: sessions[0].windows_closed)
    sessions.clear()
    wait_for(lambda: gc.collect() is not None and gone() is None)
    thread.join(20)
    assert not thread.is_alive()


def test_nothing_sleeps_while_an_answer_is_made(idle: SleepSession) -> None:
    tokens = idle.generate(3, prompt=[1])
    next(tokens)
    time.sleep(0.2)
    assert idle.windows_closed == 0
    list(tokens)
    wait_for(lambda: idle.windows_closed)
