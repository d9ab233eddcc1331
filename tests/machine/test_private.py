"""Folders that nobody else can change, whatever the umask, and where to go without one."""

import os
import pwd
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleep_lightning.machine import private
from sleep_lightning.machine.compiled_code import VARIABLES, keep_compiled_code_private
from sleep_lightning.machine.home import home
from sleep_lightning.machine.private import NotPrivate, cache_directory, fallback, private_folder, why_not_private

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of a test, which all can write, and an umask that closes nothing."""
    folder = tmp_path.resolve() / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.resolve() / "cache"))
    for variable in (*VARIABLES, private.WARNED):  # restored at the end
        monkeypatch.setenv(variable, "")
    before = os.umask(0)
    private._of_this_process.cache_clear()
    yield folder
    private._of_this_process.cache_clear()
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_created_is_closed(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert mode(folder) == mode(folder.parent) == 0o700
    assert private_folder(folder) == folder
    folder.chmod(0o755)  # of an earlier version
    assert private_folder(folder) == folder and mode(folder) == 0o700
    (tmp_path / "link").symlink_to(folder)
    assert private_folder(tmp_path / "link") == folder.resolve()


def test_what_others_can_write_is_refused(tmp_path: Path, temporary: Path) -> None:
    for open_to in (0o770, 0o707, 0o1777):
        folder = tmp_path / f"{open_to:o}"
        folder.mkdir()
        folder.chmod(open_to)
        with pytest.raises(NotPrivate, match=rf"{folder} can be written by other users"):
            private_folder(folder)
        assert mode(folder) == open_to
    with pytest.raises(NotPrivate, match=rf"{tmp_path}/770 can be written"):  # and so renamed
        private_folder(tmp_path / "770" / "inside")
    assert not (tmp_path / "770" / "inside").exists()
    private_folder(temporary / "ours")  # nobody else can rename it in a sticky folder
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").touch()
    for odd in ("circle", "file", "file/inside"):
        with pytest.raises(OSError):
            private_folder(tmp_path / odd)


@as_root
def test_what_others_own_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "theirs" / "ours")
    os.chown(folder.parent, NOBODY, NOBODY)
    with pytest.raises(NotPrivate, match=rf"{folder.parent} belongs to another user \(number 65534\)"):
        private_folder(folder)
    os.chown(folder.parent, 0, 0)
    os.chown(folder, NOBODY, NOBODY)
    assert why_not_private(folder) == f"{folder} belongs to another user (number 65534)"


def test_the_cache(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory() == tmp_path / "cache" / "sleep_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(0o755)
    assert cache_directory() == tmp_path / "home" / ".cache" / "sleep_lightning"
    (tmp_path / "home" / ".cache").chmod(0o777)
    with pytest.warns(RuntimeWarning, match=r"\.cache can be written by other users .*; compiled code is kept in"):
        assert cache_directory() == temporary / f"sleep_lightning-{os.geteuid()}"


def test_a_cache_that_cannot_be_written(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    ours = temporary / f"sleep_lightning-{os.geteuid()}"
    with pytest.warns(RuntimeWarning, match=r"file is not a folder; .* kept in .* instead.*set XDG_CACHE_HOME"):
        assert cache_directory() == ours
    with warnings.catch_warnings(action="error"):  # nor does a child say it again, which inherits the environment
        assert cache_directory() == ours
    ours.rmdir()
    ours.mkdir(0o777)  # another user was first
    one = fallback()
    assert one.name.startswith("sleep_lightning-") and one != ours and mode(one) == 0o700 and fallback() == one


def test_no_home(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for given in ("", "~", "relative", "/no/such/folder"):
        monkeypatch.setenv("HOME", given)
        assert home() is None
        monkeypatch.setenv(private.WARNED, "")
        with pytest.warns(RuntimeWarning, match=r"there is no home folder .* compiled code is kept in"):
            assert cache_directory().parent == temporary
    assert not (tmp_path / "~").exists()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: type("Entry", (), {"pw_dir": str(tmp_path)}))
    assert home() == tmp_path


@pytest.mark.long
def test_compiled_graphs_lie_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in /tmp/torchinductor_<user>, which anybody can make."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir, triton_cache_dir

    for variable in VARIABLES:
        monkeypatch.delenv(variable)
    keep_compiled_code_private()
    ours = tmp_path.resolve() / "cache" / "sleep_lightning"
    assert cache_dir() == str(ours / "inductor") and triton_cache_dir(0) == str(ours / "triton")
    assert mode(ours / "inductor") == mode(ours / "triton") == 0o700
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder, access in ((shared, 0o777), (own, 0o755)):
        folder.mkdir()
        folder.chmod(access)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor_me")  # set by torch itself
    with warnings.catch_warnings(action="error"):
        keep_compiled_code_private()
    assert cache_dir() == str(ours / "inductor")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(own / "not" / "yet"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared / "not" / "yet"))
    with pytest.warns(RuntimeWarning, match=r"TORCHINDUCTOR_CACHE_DIR: .*shared can be written by other users"):
        keep_compiled_code_private()
    assert cache_dir() == str(ours / "inductor") and triton_cache_dir(0) == str(own / "not" / "yet")
