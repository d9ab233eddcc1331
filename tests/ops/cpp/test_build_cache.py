"""Built libraries: damaged and planted ones are not loaded, killed builds leave nothing. The compiler is a stand-in."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sleep_lightning.ops.cpp import build
from sleep_lightning.ops.cpp.cache import BUILDING, builder, find, keep
from sleep_lightning.ops.cpp.compiler import BuildError, run

NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.resolve()))
    return tmp_path.resolve() / "sleep_lightning"


def kept(folder: Path, content: bytes = b"library " * 1000, key: str = "key") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "built").write_bytes(content)
    (folder / "built").chmod(0o777)
    return keep(folder / "built", folder, key)


def stand_in(path: Path, text: str) -> str:
    """A compiler that says its version, and otherwise runs a text with $out."""
    lines = ["#!/bin/sh", '[ "$1" = --version ] && exec echo 1', 'while [ "$1" != -o ]; do shift; done', "out=$2", text]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


def test_what_was_kept_is_found(folder: Path) -> None:
    assert not folder.exists()
    path = kept(folder)
    assert find(folder, "key") == path and find(folder, "another") is None
    assert path.stat().st_mode & 0o777 == 0o700
    other = path.with_name(path.name.replace("-key-", "-another-"))
    path.rename(other)  # whole, but of another source
    assert find(folder, "another") is None


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_a_damaged_library_is_removed(damage: str, folder: Path) -> None:
    path, content = kept(folder), b"library " * 1000
    flipped = bytes([*content[:700], content[700] ^ 4, *content[701:]])
    path.write_bytes({"empty": b"", "cut": content[:4096], "flipped": flipped}[damage])
    assert find(folder, "key") is None and not path.exists()


@pytest.mark.parametrize("fault", ["all can write", "a link", "a pipe", "of another user"])
def test_a_planted_library_is_not_taken(fault: str, folder: Path) -> None:
    path = kept(folder)
    if fault == "all can write":
        path.chmod(0o722)
    elif fault == "of another user":
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(path, NOBODY, NOBODY)
    else:
        path.rename(folder / "elsewhere")
        path.symlink_to(folder / "elsewhere") if fault == "a link" else os.mkfifo(path, 0o700)
    assert find(folder, "key") is None
    assert kept(folder).is_file() and find(folder, "key") == path  # built anew in its place


@pytest.mark.process
def test_a_damaged_library_is_built_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    monkeypatch.setenv("CXX", stand_in(tmp_path / "cxx", f"echo >> {calls}; echo library > $out"))
    path = build.build()
    assert build.build() == path and path.parent == folder
    path.write_bytes(b"")
    assert build.build() == path and path.read_text() == "library\n"
    assert calls.read_text().count("\n") == 2


@pytest.mark.process
def test_another_place_if_others_can_write_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was planted there is neither loaded nor touched."""
    monkeypatch.setenv("CXX", stand_in(tmp_path / "cxx", "echo ours > $out"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = build.build()
    folder.chmod(0o777)
    with pytest.warns(RuntimeWarning, match=r"can be written by other users .* is kept in .* built anew there"):
        elsewhere = build.build()
    assert elsewhere.name == path.name and elsewhere.parent == tmp_path.resolve() / f"sleep_lightning-{os.geteuid()}"


@pytest.mark.process
def test_a_command_ends_with_its_result_or_its_error(tmp_path: Path) -> None:
    assert run(["sh", "-c", "echo $TMPDIR"], tmp_path) == f"{tmp_path}\n"
    with pytest.raises(BuildError, match="false failed"):
        run(["false"])
    assert not [child for child in psutil.Process().children(recursive=True) if child.name() == "sh"]


@pytest.mark.process
@pytest.mark.long
def test_a_killed_build_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = tmp_path / "began"
    compiler = stand_in(tmp_path / "cxx", f"sh -c 'echo $$ > {began}.part; mv {began}.part {began}; sleep 600; :'")
    code = "from sleep_lightning.ops.cpp import build; build.build()"
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"CXX": compiler}) as process:
        deadline = time.monotonic() + 60
        while not began.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        child = psutil.Process(int(began.read_text()))
        running = [child, *child.children()]
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(running, timeout=30)
    assert len(running) == 2 and not alive
    assert len(list(folder.glob(f"{BUILDING}*"))) == 1
    with builder(folder, seconds=10) as temporary:
        assert list(folder.glob(f"{BUILDING}*")) == [temporary]
    assert [path.name for path in folder.iterdir()] == ["build.lock"]


def test_one_builds_at_a_time(folder: Path) -> None:
    folder.mkdir()
    with builder(folder, seconds=0) as first:
        with builder(folder, seconds=0) as second:  # it did not get its turn, and so it removes nothing
            assert first.is_dir() and second.is_dir()
        assert first.is_dir()
