"""What the machine failed is told from what a run failed, and a full disk is waited for or named."""

import errno
import io
import os
import signal
import socket
import sqlite3
from pathlib import Path

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.runs import backoff, infrastructure, space
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_atomically, write_text
from sleep_lightning.runs.infrastructure import DIVERGED, Cause, Retry, cause_of, cause_of_exit
from sleep_lightning.runs.space import DiskFull, refusal
from sleep_lightning.training.errors import Diverged, exit_code, remedy


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


def sqlite_full() -> sqlite3.Error:
    """As SQLite raises it."""
    with sqlite3.connect(":memory:") as database:
        database.execute("PRAGMA max_page_count=2")
        try:
            database.execute("CREATE TABLE t (x)")
            database.execute("INSERT INTO t VALUES (zeroblob(100000))")
        except sqlite3.Error as error:
            return error
    raise AssertionError("it was not full")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (full(), Cause.DISK),
        (OSError(errno.EDQUOT, "quota"), Cause.DISK),
        (OSError(errno.ESTALE, "stale"), Cause.DISK),
        (caused(ValueError("training.run_dir cannot be written"), full()), Cause.DISK),
        (caused(RuntimeError("a library's"), caused(RuntimeError("another's"), sqlite_full())), Cause.DISK),
        (MemoryError(), Cause.MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), Cause.MEMORY),
        (OSError(errno.ENOMEM, "fork"), Cause.MEMORY),
        (RuntimeError("[/x/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), Cause.NODE),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Cause.SERVICE),
        (socket.gaierror(-2, "Name or service not known"), Cause.SERVICE),
        (FileNotFoundError(errno.ENOENT, "none"), None),
        (PermissionError(errno.EACCES, "no"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (KeyError("x"), None),
    ],
    ids=str,
)
def test_an_error_has_its_cause(error: Exception, cause: Cause | None) -> None:
    assert cause_of(error) is cause


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-signal.SIGKILL, Cause.MEMORY),
        (137, Cause.MEMORY),
        (-signal.SIGTERM, Cause.NODE),
        (143, Cause.NODE),
        (None, Cause.NODE),
        *((int(one), one) for one in Cause),
        (-signal.SIGSEGV, None),
        (os.EX_TEMPFAIL, None),
        (DIVERGED, None),
        (0, None),
        (1, None),
        (2, None),
    ],
)
def test_an_exit_code_has_its_cause(code: int | None, cause: Cause | None) -> None:
    assert cause_of_exit(code) is cause


def test_training_that_fails_ends_with_the_exit_code_of_its_cause() -> None:
    assert exit_code(MemoryError()) == Cause.MEMORY and exit_code(full()) == Cause.DISK
    assert exit_code(KeyError("x")) == 1
    diverged = Diverged("the loss is nan", 3, load_experiment(None, ["sleep.window_size=8"]).training)
    assert exit_code(diverged) == DIVERGED
    said = remedy(DiskFull("run/checkpoints/last.ckpt", full(), 1234))
    assert said is not None and said.startswith("run/checkpoints/last.ckpt cannot be written: No space left on device")
    assert said.endswith("; free some space, and fit --resume resumes from the last checkpoint")


def test_the_machine_is_waited_for_with_pauses_that_double() -> None:
    disk, memory = Retry(), Retry()
    assert [disk.after(Cause.DISK) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(disk.after(Cause.DISK) == 30 for _ in range(1000)), "a disk is full for as long as it is"
    assert [memory.after(Cause.MEMORY) is None for _ in range(infrastructure.TRIES + 1)] == [
        *[False] * infrastructure.TRIES,
        True,
    ]
    assert not disk.due and Retry().due


@pytest.mark.parametrize("times", [2, 100])
def test_a_write_waits_for_space_or_leaves_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], times: int
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(space, "PATIENCE", 0.1)
    write_text(file := tmp_path / "history.json", "before")
    left, plain = [full()] * times, os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: plain(number) if not left else fail(left.pop()))
    if times == 2:
        write_text(file, "after" * 300)
        assert file.read_text() == "after" * 300
    else:
        with pytest.raises(
            DiskFull, match=r"history\.json cannot be written: No space .* \(needs 1\.5 kB, .*B free in"
        ):
            write_text(file, "after" * 300)
        assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{file} cannot be written yet: No space left on device (needs 1.5 kB, " in said


def test_it_waits_as_long_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(space.time, "monotonic", lambda: sum(waited))
    monkeypatch.setattr(space.time, "sleep", waited.append)
    with pytest.raises(DiskFull):
        space.with_space(tmp_path / "a", lambda: fail(full()), lambda: 1)
    assert waited == [0.5, 1, 2, 4, 8, 14.5] and sum(waited) == space.PATIENCE
    with pytest.raises(DiskFull):
        space.with_space(tmp_path / "a", lambda: fail(full()), lambda: 1, patience=0)
    assert len(waited) == 6


def fail(error: OSError) -> None:
    raise error


def test_torchs_own_error_on_a_full_disk_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says "unexpected pos 469568 vs 469456", and closes the file first."""
    content = {"a": torch.zeros(100_000)}
    with pytest.raises(DiskFull, match="/dev/full cannot be written: No space left on device"):
        write_atomically(Path("/dev/full"), lambda file: torch.save(content, file))
    torch.save(content, kept := io.BytesIO())
    monkeypatch.setattr(space, "PATIENCE", 0.0)
    size = f"needs {len(kept.getvalue()) / 1000:.3g} kB, "

    def save(file: io.BufferedWriter) -> None:
        torch.save(content, file)
        if str(getattr(file.raw, "name", "")).endswith(".partial"):  # not while it is measured
            raise full()

    with pytest.raises(DiskFull) as caught:
        write_atomically(tmp_path / "x.ckpt", save)  # type: ignore[arg-type]
    assert size in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_command_on_a_full_disk_is_one_sentence_with_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--output", "/dev/full"]) == Cause.DISK
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: /dev/full cannot be written: No space left on")
    monkeypatch.setattr(Path, "mkdir", lambda self, *a, **k: fail(OSError(errno.ENOSPC, "full", str(self))))
    assert (
        main(["fit", "task.name=rule110", "sleep.window_size=24", "training.run_dir=run", "tracking.enabled=false"])
        == Cause.DISK
    )
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("error: run/checkpoints cannot be written: No space left on device (needs a block, ")
    assert refusal(ValueError("a mistake")) == ("a mistake", 2)


def test_a_full_database_is_named() -> None:
    full_file = DiskFull.of_sqlite("sweep.db", caused(RuntimeError("a library's"), sqlite_full()))
    assert full_file is not None and full_file.what.startswith("sweep.db cannot be written: No space left on device (")
    assert DiskFull.of_sqlite("sweep.db", RuntimeError("no such table: trials")) is None


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)

    class Full(io.StringIO):
        def flush(self) -> None:
            raise full()

    monkeypatch.setattr(RunDirectory, "_open_lock", lambda self: Full())
    monkeypatch.setattr("sleep_lightning.runs.directory.take", lambda file, seconds: True)
    with pytest.raises(DiskFull, match=f"{tmp_path}/lock cannot be written: No space left on device"):
        run.lock()
