"""A second, unprivileged user of the machine: can neither run code in the first's processes, nor hang them, nor read a
secret of theirs. The tests become that user, and so need root."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path

import pytest

from sleep_lightning.config import load_experiment
from sleep_lightning.machine import private
from sleep_lightning.machine.locks import open_lock, take
from sleep_lightning.machine.private import cache_directory
from sleep_lightning.ops.cpp import build, cache
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.sqlite import connect_sqlite
from sleep_lightning.tracking.mlflow_store import create_whole
from tests.cli.cli import ROOT

OTHER = 65534
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]


def as_other(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, user=OTHER, group=OTHER, extra_groups=[], capture_output=True, text=True, timeout=60)


def library(path: Path, source: str) -> None:
    command: Sequence[str | Path] = ["cc", "-shared", "-fPIC", "-x", "c", "-o", path, "-"]
    subprocess.run(command, input=source, text=True, check=True)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that all can reach and write, as /tmp is; the temporary one of this test."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        private._of_this_process.cache_clear()
        yield folder
        private._of_this_process.cache_clear()


@pytest.mark.parametrize("folder", ["of the other", "all can write", "ours"])
def test_a_planted_library_does_not_run(folder: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name has the right key, and the right hash of its content. Where the caches lie, the other was first, too."""
    shared, mark, evil = place / "cache", place / "mark", place / "evil.so"
    compiler = place / "cxx"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo 1\nwhile [ "$1" != -o ]; do shift; done\n'
        'echo "int ours;" | cc -shared -fPIC -x c -o "$2" -\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    right = build.build()
    key = right.name.split("-")[1]
    library(evil, f'#include <stdlib.h>\n__attribute__((constructor)) void run(void) {{ system("touch {mark}"); }}')
    subprocess.run([sys.executable, "-c", f"import ctypes; ctypes.CDLL('{evil}')"], check=True)
    assert mark.exists()  # so it would run
    mark.unlink()
    planted = right.parent / cache._name(key, evil.read_bytes())
    right.unlink()
    planted.write_bytes(evil.read_bytes())
    planted.chmod(0o755)
    os.chown(planted, OTHER, OTHER)
    if folder == "of the other":
        os.chown(planted.parent, OTHER, OTHER)
    if folder == "all can write":
        planted.parent.chmod(0o777)
    squatted = place / f"sleep_lightning-{os.geteuid()}"
    squatted.mkdir()
    os.chown(squatted, OTHER, OTHER)
    if folder == "ours":
        path = build.build()
        assert path == right
    else:
        with pytest.warns(RuntimeWarning, match=r"is kept in .* instead, and built anew there"):
            path = build.build()
        assert path.name == right.name and path.parent not in (right.parent, squatted)
    ctypes.CDLL(str(path))
    assert not mark.exists()


def test_nothing_in_the_cache_can_be_touched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    before = os.umask(0)
    try:
        folder = cache_directory()
        (folder / "library.so").write_text("ours")
        with open_lock(folder / "lock") as lock:
            for attempt in (
                ["ls", folder],
                ["cat", folder / "library.so"],
                ["touch", folder / "new"],
                ["ln", "-sf", "/dev/null", folder / "library.so"],
                ["mv", place / "cache", place / "moved"],
                ["flock", "-n", folder / "lock", "true"],
                ["flock", "-n", folder, "true"],
            ):
                assert as_other(*attempt).returncode != 0, attempt
            assert take(lock)
    finally:
        os.umask(before)
    assert (folder / "library.so").read_text() == "ours"


def test_no_secret_in_what_all_can_see_of_a_process(place: Path) -> None:
    secret = "c4nary"
    experiment = load_experiment(ROOT / "conf" / "rule110.yaml", [f"tracking.uri=http://me:{secret}@127.0.0.1:9"])
    process = FitProcess(experiment, RunDirectory(place / "run")).start(threads=1)._process
    try:
        assert secret in Path(f"/proc/{process.pid}/environ").read_text()
        assert as_other("cat", f"/proc/{process.pid}/environ").returncode != 0
        seen = as_other("cat", f"/proc/{process.pid}/cmdline").stdout
        assert "sleep_lightning" in seen and secret not in seen
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    seen = as_other("grep", "-r", "", place).stdout
    assert "rule110" in seen and secret not in seen


def test_databases_of_runs_and_sweeps_cannot_be_locked(place: Path) -> None:
    """SQLite's locks are of the file itself; who may only read it can lock it."""
    before = os.umask(0o022)
    try:
        create_whole(f"sqlite:///{place}/mlflow.db")
        connection = connect_sqlite(str(place / "trials.db"))
        connection.execute("CREATE TABLE one (number)")
        connection.execute("INSERT INTO one VALUES (1)")
    finally:
        os.umask(before)
    files = {path.name for path in place.glob("*.db*")}
    assert files >= {"mlflow.db", "trials.db", "trials.db-wal", "trials.db-shm"}
    for file in files:
        assert as_other("flock", "-n", place / file, "true").returncode != 0, file
    connection.close()


@pytest.mark.slow
def test_names_taken_in_the_temporary_folder_end_nothing(place: Path) -> None:
    """There every library has a name that can be guessed. The home cannot be written, so it is all there is."""
    for name in ("torchinductor_root", "torchinductor_uid_0", "sleep_lightning-0", "matplotlib", "triton"):
        (place / name).write_text("taken")
        os.chown(place / name, OTHER, OTHER)
    run = ["training.max_steps=2", "training.val_every=2", "training.val_batches=1", "training.batch_size=4"]
    command = [sys.executable, "-m", "sleep_lightning", "fit", "--config", str(ROOT / "conf" / "rule110.yaml"), *run]
    environment = os.environ | {"TMPDIR": str(place), "HOME": "/no/such/folder", "PYTHONPATH": str(ROOT)}
    environment = {k: v for k, v in environment.items() if k not in ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")}
    work = place / "work"
    work.mkdir(0o700)
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert {path.name for path in work.iterdir()} <= {"runs", "mlflow.db", "mlruns"}


def test_the_socket_of_a_process_server_is_closed_to_others() -> None:
    """``bench storage`` starts its writers over one, and what comes in is unpickled. Some earlier versions of Python
    let anybody connect (CVE-2022-42919)."""
    context, before = multiprocessing.get_context("forkserver"), os.umask(0)
    try:
        process = context.Process(target=abs, args=(1,))
        process.start()
        process.join()
        socket = Path(forkserver._forkserver._forkserver_address)
        assert socket.is_socket() and as_other("ls", socket).returncode != 0
    finally:
        os.umask(before)
        forkserver._forkserver._stop()
