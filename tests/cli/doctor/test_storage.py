"""Full disks, folders that cannot be written, locks that do not hold."""

import errno
import fcntl
import shutil
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from sleep_lightning.cli.doctor import storage
from tests.cli.doctor.rows import sole

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize(("free", "state"), [(10**8, "error"), (2 * 10**9, "warning"), (10**11, "ok")])
def test_disk(free: int, state: str, tmp_path: Path, monkeypatch: Patch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 10**12 - free, free))
    row = sole(storage.check_disk(tmp_path / "runs" / "deep"))
    assert row.state == state and str(tmp_path) in row.found


def test_read_only() -> None:
    row = sole(storage.check_locks(Path("/proc/runs")))
    assert row.state == "error" and "chmod" in row.remedy


def test_locks_that_do_not_hold(tmp_path: Path, monkeypatch: Patch) -> None:
    assert sole(storage.check_locks(tmp_path)).state == "ok"
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    row = sole(storage.check_locks(tmp_path))
    assert row.state == "error" and "do not hold" in row.found

    def refuses(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    row = sole(storage.check_locks(tmp_path))
    assert row.state == "error" and "No locks available" in row.found
    assert not list(tmp_path.iterdir())


def test_locks_of_this_machine_only(tmp_path: Path, monkeypatch: Patch) -> None:
    mount = namedtuple("mount", "mountpoint fstype opts")
    mounts = [mount("/", "ext4", "rw"), mount(str(tmp_path), "nfs4", "rw,local_lock=all")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    row = sole(storage.check_locks(tmp_path / "runs"))
    assert row.state == "warning" and "nfs4" in row.found and "local_lock=all" in row.remedy
