"""Locks hold, nobody else can hold them, and a file system without them ends nothing."""

import errno
import fcntl
import os
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from sleep_lightning.machine import locks
from sleep_lightning.machine.locks import open_lock, take
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.sweep.folder import sole_supervisor


def test_a_lock_is_exclusive_until_it_is_closed(tmp_path: Path) -> None:
    one, two = open_lock(tmp_path / "lock"), open_lock(tmp_path / "lock")
    assert take(one) and not take(two) and not take(two, shared=True)
    threading.Timer(0.2, one.close).start()
    assert take(two, seconds=30)
    two.close()


def test_a_file_system_without_locks_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_said", set())
    with pytest.warns(UserWarning, match=f"{tmp_path}/lock: file locks do not work here .Function not implemented"):
        RunDirectory(tmp_path).lock()
    with sole_supervisor(tmp_path):  # once
        pass


def test_a_lock_of_a_stranger_is_no_process_to_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleep_lightning.runs.directory.LOOK_SECONDS", 0.1)
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as stranger:
        fcntl.flock(stranger, fcntl.LOCK_SH)
        with pytest.raises(ValueError, match=r"which has not said who it is; wait for it, or find it: fuser -v -- "):
            RunDirectory(tmp_path).lock()


def test_looking_never_refuses_the_owner(tmp_path: Path) -> None:
    run, done = RunDirectory(tmp_path), threading.Event()

    def look() -> None:
        while not done.is_set():
            run.holder()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            run.lock().close()
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_open_a_lock() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "lock").touch(0o644)  # of an earlier version
        with RunDirectory(folder).lock(), sole_supervisor(folder):
            for lock in (folder / "lock", folder / "supervisor.lock"):
                assert stat.S_IMODE(lock.stat().st_mode) == 0o600
                assert subprocess.run(["flock", "-s", "-n", lock, "true"], user=65534, capture_output=True).returncode
