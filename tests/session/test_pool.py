"""A pool: answers as alone, a byte budget over disk, nothing lost, and nothing of another owner's."""

import errno
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.machine.locks import open_lock, take
from sleep_lightning.session import (
    AuditLine,
    NoRoom,
    NoSession,
    SessionExpired,
    SessionPool,
    SleepSession,
    lru,
    state_file,
)
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.testing.tiny import tiny_model

L, VOCAB = 6, 11
CONFIG = SleepConfig(window_size=L, n_passes=3)
MODEL = tiny_model(vocab_size=VOCAB, pattern="GAJA").eval()
BYTES = SleepSession(MODEL, CONFIG).nbytes


def pool(folder: Path, sessions: float = 16, **options: Any) -> SessionPool:
    return SessionPool(MODEL, CONFIG, int(sessions * BYTES), folder, **options)


def text(seed: int, T: int) -> list[int]:
    return torch.randint(VOCAB, (T,), generator=torch.Generator().manual_seed(seed)).tolist()


def work(seed: int) -> Callable[[SleepSession], tuple[list[int], torch.Tensor]]:
    """Reads, sleeps and answers: of another length for each seed."""

    def run(session: SleepSession) -> tuple[list[int], torch.Tensor]:
        session.append(text(seed, 5 + 3 * seed))
        if seed % 2:
            session.sleep(2)
        answer = session.ask(text(seed + 50, 2), 7, keep=bool(seed % 3))
        return answer, session.logprobs(text(seed + 99, 4))

    return run


def test_at_once_is_as_alone(tmp_path: Path) -> None:
    """Of different fills, some asleep while others read; more sessions than a forward takes."""
    seeds = range(7)
    with pool(tmp_path, max_batch=4) as p, ThreadPoolExecutor(7) as threads:
        names = [p.create("a") for _ in seeds]

        def one(seed: int) -> tuple[list[int], torch.Tensor]:
            with p.use("a", names[seed]) as session:
                return work(seed)(session)

        together = list(threads.map(one, seeds))
        bills = []
        for name in names:
            with p.use("a", name) as session:
                bills.append((session.tokens_seen, session.cost.wake.flops, session.cost.sleep.flops))
    for seed, (answer, logprobs) in zip(seeds, together, strict=True):
        alone = SleepSession(MODEL, CONFIG)
        expected, alone_logprobs = work(seed)(alone)
        assert answer == expected
        torch.testing.assert_close(logprobs, alone_logprobs, rtol=0, atol=1e-5)
        assert bills[seed] == (alone.tokens_seen, alone.cost.wake.flops, alone.cost.sleep.flops)


def test_map_shares_forwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    with pool(tmp_path) as p:
        names = [p.create("a") for _ in range(6)]
        read = p.engine._decoding.read
        monkeypatch.setattr(
            p.engine._decoding, "read", lambda windows, tokens: rows.append(len(windows)) or read(windows, tokens)
        )
        answers = p.map("a", names, lambda session: session.ask([1, 2], 24))
    assert answers == [answers[0]] * 6
    assert sum(rows) >= 6 * 23 and len(rows) < sum(rows) / 2
    assert len(rows) < 3 * 24, "they hardly ever met"


def test_the_budget_is_kept_and_sessions_come_back(tmp_path: Path) -> None:
    with pool(tmp_path, 2.5) as p:
        names = [p.create("a") for _ in range(5)]
        for turn in range(3):
            for i, name in enumerate(names):
                with p.use("a", name) as session:
                    session.append(text(10 * turn + i, 4))
                assert p.entries.in_memory <= 2
        assert p.entries.evictions >= 8 and p.entries.loads >= 8
        for i, name in enumerate(names):
            alone = SleepSession(MODEL, CONFIG)
            for turn in range(3):
                alone.append(text(10 * turn + i, 4))
            with p.use("a", name) as session:
                assert session.tokens_seen == 12
                torch.testing.assert_close(session.logprobs([1, 2, 3]), alone.logprobs([1, 2, 3]), rtol=0, atol=1e-5)


def test_they_survive_the_pool(tmp_path: Path) -> None:
    with pool(tmp_path) as p:
        a, b = p.create("a"), p.create("b")
        with p.use("a", a) as session:
            session.append(text(1, 9))
            before = session.logprobs([3])
        with pytest.raises(ValueError, match="is used by another process"):
            pool(tmp_path)
    with pool(tmp_path) as p:
        assert p.names("a") == [a] and p.names("b") == [b] and p.names("c") == []
        with p.use("a", a) as session:
            assert session.tokens_seen == 9 and torch.equal(session.logprobs([3]), before)


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path, 2)
    names = [p.create("a") for _ in range(3)]
    for i, name in enumerate(names):
        with p.use("a", name) as session:
            session.append(text(i, 3))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")

    with monkeypatch.context() as patch:
        patch.setattr(state_file, "write_whole", full)
        for refused in (lambda: p.create("a"), lambda: p.use("a", names[0]).__enter__()):
            with pytest.raises(NoRoom, match=r"No space left on device\); free some space"):
                refused()
        for name in names[1:]:  # those in memory work on
            with p.use("a", name) as session:
                session.append([5])
        with pytest.raises(OSError, match="No space left"):
            p.close()
        assert p.entries.in_memory == 2 and p.names("a") == sorted(names)
    seen = []
    for name in names:
        with p.use("a", name) as session:
            seen.append(session.tokens_seen)
    assert seen == [3, 4, 4]
    p.close()


@pytest.mark.process
def test_killed_between_write_and_drop_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (child := os.fork()) == 0:
        try:
            p = pool(tmp_path, 1)
            name = p.create("a")
            with p.use("a", name) as session:
                session.append(text(0, 8))
            monkeypatch.setattr(lru.Entries, "_drop", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            p.create("a")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with pool(tmp_path) as p:
        [name] = p.names("a")
        with p.use("a", name) as session:
            alone = SleepSession(MODEL, CONFIG)
            alone.append(text(0, 8))
            assert session.tokens_seen == 8
            torch.testing.assert_close(session.logprobs([1]), alone.logprobs([1]), rtol=0, atol=1e-5)


def test_an_owner_cannot_touch_what_is_anothers(tmp_path: Path) -> None:
    with pool(tmp_path) as p:
        name = p.create("a")
        calls: dict[str, Callable[[str], object]] = {
            "use": lambda n: p.use("b", n).__enter__(),
            **{do: lambda n, do=do: getattr(p, do)("b", n) for do in (
                "fork", "snapshot", "rollback", "reset", "delete", "export"
            )},
        }  # fmt: skip
        for call in calls.values():
            said = []
            for n in (name, "0" * 32, "../a/" + name):
                with pytest.raises(NoSession) as caught:
                    call(n)
                said.append(str(caught.value))
            assert len(set(said)) == 1 and name not in said[0]
        assert p.names("b") == [] and p.names("a") == [name]
        with pytest.raises(ValueError, match=r"owner='\.\./x' must be"):
            p.create("../x")


def test_snapshot_fork_reset_and_delete(tmp_path: Path) -> None:
    with pool(tmp_path, 1) as p:
        name = p.create("a")
        with p.use("a", name) as session:
            session.append(text(1, 9))
            clean = session.logprobs([3])
        with pytest.raises(ValueError, match="no snapshot"):
            p.rollback("a", name)
        p.snapshot("a", name)
        with p.use("a", name) as session:
            session.append(text(2, 9))
        twin = p.fork("a", name)
        p.rollback("a", name)
        with p.use("a", name) as session:
            assert session.tokens_seen == 9 and torch.equal(session.logprobs([3]), clean)
        with p.use("a", twin) as session:
            assert session.tokens_seen == 18
        with pytest.raises(ValueError, match="no snapshot"):
            p.rollback("a", twin)
        p.reset("a", name)
        assert not list(tmp_path.glob("*/*snapshot*"))
        p.delete("a", twin)
        assert [file.name for file in (tmp_path / "a").iterdir()] == [f"{name}.safetensors"]
        with p.use("a", name) as session:
            assert session.tokens_seen == 0
    assert (tmp_path / "a").stat().st_mode & 0o77 == 0


def test_export_and_restore(tmp_path: Path) -> None:
    with pool(tmp_path) as p:
        name = p.create("a")
        with p.use("a", name) as session:
            session.append(text(1, 9))
        content = p.export("a", name)
        again = p.restore("b", content)
        with p.use("a", name) as one, p.use("b", again) as other:
            assert torch.equal(one.logprobs([3]), other.logprobs([3])) and other.tokens_seen == 9
        for bad in (content[:-5], b"", b"x" * 99):
            with pytest.raises(ValueError, match="the state"):
                p.restore("b", bad)
        wide = SleepSession(MODEL, SleepConfig(window_size=2**20, n_passes=3))
        wide.save(tmp_path / "wide")
        with pytest.raises(ValueError, match=rf"begun with sleep.window_size={2**20} and not {L}"):
            p.restore("b", (tmp_path / "wide").read_bytes())
        assert p.names("b") == [again] and len(list((tmp_path / "b").iterdir())) == 1


def test_sessions_expire_in_memory_and_on_disk(tmp_path: Path) -> None:
    now = [0.0]
    with pool(tmp_path, 2, clock=lambda: now[0]) as p:
        short, lasting = p.create("a", ttl=10), p.create("a", ttl=100)
        twin = p.fork("a", short)
        now[0] = 11
        with pytest.raises(SessionExpired), p.use("a", short) as session:
            session.append([1])
        p.expire()
        assert p.names("a") == [lasting] and not (tmp_path / "a" / f"{twin}.safetensors").exists()
        p.create("a")
        p.create("a")  # lasting goes to disk
        now[0] = 101
    with pool(tmp_path, 2, clock=lambda: now[0]) as p:
        assert lasting not in p.names("a") and len(p.names("a")) == 2


def test_a_state_that_has_expired_is_not_restored(tmp_path: Path) -> None:
    now = [0.0]
    with pool(tmp_path, clock=lambda: now[0]) as p:
        content = p.export("a", p.create("a", ttl=10))
        now[0] = 11
        with pytest.raises(SessionExpired, match="the state has expired"):
            p.restore("a", content)


def test_what_a_state_makes_is_asked_before_it_is_kept(tmp_path: Path) -> None:
    def check(session: SleepSession) -> None:
        raise NoRoom(None, f"{session.most_passes} passes")

    with pool(tmp_path) as p:
        name = p.create("a", keep_texts=True)
        with p.use("a", name) as session:
            session.append([1, 2])
            session.sleep(9)
        with pytest.raises(NoRoom, match="9 passes"):
            p.restore("b", p.export("a", name), check)
        assert p.names("b") == [] and not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("way", ["delete", "expire", "start"])
def test_what_a_killed_writer_left_goes_with_the_session(tmp_path: Path, way: str) -> None:
    now = [0.0]
    with pool(tmp_path, clock=lambda: now[0]) as p:
        name = p.create("a", ttl=10)
        p.snapshot("a", name)
        files = [f".{name}.safetensors.partial", f".{name}.snapshot.safetensors.partial"]
        for file in files:
            (tmp_path / "a" / file).touch()
        if way == "delete":
            p.delete("a", name)
        elif way == "expire":
            now[0] = 11
            p.expire()
        if way != "start":
            assert not list((tmp_path / "a").iterdir())
    other = "0" * 32
    kept = [f"{name}.safetensors", f"{name}.snapshot.safetensors"] if way == "start" else []
    for file in (f"{other}.snapshot.safetensors", f".{other}.safetensors.partial", f"{other}.partial", "notes.partial"):
        (tmp_path / "a" / file).touch()
    with pool(tmp_path, clock=lambda: now[0]) as p:
        assert sorted(file.name for file in (tmp_path / "a").iterdir()) == sorted([*kept, "notes.partial"])
        assert p.names("a") == [name][: len(kept)]


def test_an_owner_may_have_any_name(tmp_path: Path) -> None:
    """Also that of the lock in folders of earlier versions, which go on."""
    (tmp_path / "lock").touch()
    with pool(tmp_path) as p:
        name = p.create("lock")
        assert p.names("lock") == [name]
        with pytest.raises(ValueError, match="is used by another process"):
            pool(tmp_path)
    with pool(tmp_path) as p:
        assert len(p.names("lock")) == 1
    (tmp_path / "old").mkdir()
    with open_lock(tmp_path / "old" / "lock") as held:
        assert take(held)
        with pytest.raises(ValueError, match="is used by another process"):
            pool(tmp_path / "old")


def test_the_audit_names_sessions_as_the_pool_does(tmp_path: Path) -> None:
    lines: list[AuditLine] = []
    with pool(tmp_path, audit=lines.append) as p:
        name = p.create("a", writes={"book": 2}, keep_texts=True)
        with p.use("a", name) as session:
            session.append(text(1, L), source="book")
            session.append(text(2, L), source="web")
            assert [(line.sources, line.n_passes) for line in session.provenance()] == [({"book": L}, 2), ({}, 0)]
        assert p.forget("a", name, "web") == L
        content = p.export("a", name)
        again = p.restore("a", content)
        with p.use("a", again) as session:
            session.append([1])
    assert {line.session for line in lines if line.method in ("append", "provenance", "forget")} == {name, again}


def test_nobody_waits_for_anothers_sleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep, wake = threading.Event(), threading.Event()
    with pool(tmp_path) as p, ThreadPoolExecutor(2) as threads:
        a, b = p.create("a"), p.create("b")
        close = p.engine._asleep._run

        def slow(items: Any) -> Any:
            if items[0].config.n_passes == 5:
                asleep.set()
                assert wake.wait(60)
            return close(items)

        monkeypatch.setattr(p.engine._asleep, "_run", slow)

        def long_sleep() -> int:
            with p.use("a", a) as session:
                session.append([1, 2])
                return session.sleep(5)

        sleeping = threads.submit(long_sleep)
        assert asleep.wait(60)
        with p.use("b", b) as session:  # reads, sleeps and answers meanwhile
            session.append(text(3, 8))
            assert len(session.ask([1], 3)) == 3
        assert not sleeping.done()
        wake.set()
        assert sleeping.result(60) == 5


def test_sessions_that_sleep_otherwise_are_refused(tmp_path: Path) -> None:
    """In a directory that another pool has left; N alone may differ."""
    with pool(tmp_path) as p:
        name = p.create("a")
        with p.use("a", name) as session:
            session.append(text(0, 8))
    more = replace(CONFIG, n_passes=CONFIG.n_passes + 1)
    with SessionPool(MODEL, more, 10**7, tmp_path) as p:
        again = p.restore("b", p.export("a", name))
        for owner, one in (("a", name), ("b", again)):
            with p.use(owner, one) as session:
                assert session.tokens_seen == 8 and session.config.n_passes == CONFIG.n_passes
    with SessionPool(MODEL, replace(CONFIG, window_size=L + 2), 10**7, tmp_path) as p:
        with pytest.raises(ValueError, match=rf"begun with sleep.window_size={L} and not {L + 2}, .* begin another"):
            p.use("a", name).__enter__()
        p.delete("a", name)
        assert p.names("a") == [] and p.entries.in_memory == 0


def test_a_budget_for_less_than_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has no room for a session, .* give at least {BYTES}"):
        pool(tmp_path, 0.9)
