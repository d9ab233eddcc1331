"""What a command settles first: files closed to others, a home folder, memory."""

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli.surroundings import settle
from sleep_lightning.machine.compiled_code import VARIABLES


@pytest.fixture(autouse=True)
def _settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", os.environ["HOME"])
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o664), (0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_nothing_is_created_that_all_can_write(umask: int, mode: int, tmp_path: Path) -> None:
    os.umask(umask)
    assert main(["config", "tracking.enabled=false"]) == 0
    (tmp_path / "file").touch()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nobody(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    settle()
    place = tmp_path.resolve() / f"sleep_lightning-{os.geteuid()}"
    assert Path.home() == place and stat.S_IMODE(place.stat().st_mode) == 0o700
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{place} is used, set HOME to choose another" in said
    assert [path.name for path in tmp_path.iterdir()] == [place.name]  # no folder named ~
    settle()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), ImportError("libx.so: failed to map segment from shared object")])
def test_memory_that_runs_out_later(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("sleep_lightning.cli.commands.config.prepare", lambda arguments: fail)
    assert main(["config"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory") and said.count("\n") == 1


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("sleep_lightning.cli.commands.config.prepare", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(["config"])
