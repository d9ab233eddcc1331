"""Where trials are kept, and what happens while that cannot be used."""

import errno
import os
import sqlite3
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from sleep_lightning.__main__ import main
from sleep_lightning.machine.compiled_code import VARIABLES
from sleep_lightning.runs import backoff
from sleep_lightning.sweep.folder import find_sweep, known_sweeps, load_saved, save_sweep
from sleep_lightning.sweep.storage import check_url, open_storage
from sleep_lightning.sweep.study import finished, open_study, read_study
from tests.cli.test_sweep import spec
from tests.sweep.studies import ToldStudy
from tests.sweep.sweeps import small_sweep

POSTGRESQL = "postgresql+psycopg://me@db/sweeps"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me@db/x", r"is neither postgresql\+psycopg://user@host/database nor sqlite:///file\.db"),
        ("mysql://me:s3cret@db/x", r"storage='mysql://me:\*\*\*@db/x' is neither"),
        ("journal.log", r"storage='journal\.log' is neither"),
        ("sqlite://", r"storage='sqlite://' names no file"),
        ("sqlite:///:memory:", r"names no file"),
        ("postgresql+psycopg://me:s3cret@db/x", r"me:\*\*\*@db/x' holds a password.* PGPASSWORD or .* ~/\.pgpass"),
        ("postgresql+psycopg://me@db/x?password=s3cret", r"password=\*\*\*' holds a password"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_url(url)
    assert "s3cret" not in str(caught.value)


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_url(POSTGRESQL) == POSTGRESQL
    assert check_url("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert check_url(f"sqlite:////{tmp_path}/a.db") == f"sqlite:////{tmp_path}/a.db"


@pytest.mark.long
def test_a_sweep_in_a_database_is_found_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/all.db"
    for name in ("a", "b"):
        told = ToldStudy(tmp_path / "runs" / "sweeps" / name, storage=url, name=name)
        save_sweep(told.sweep, told.folder)
        told.finish(2 if name == "a" else 3, 0.5, 1e6)
    assert known_sweeps() == [Path("runs/sweeps/a"), Path("runs/sweeps/b")]
    for name, n in (("a", 2), ("b", 3)):
        folder = find_sweep(name)
        assert [trial.params["sleep.n_passes"] for trial in finished(read_study(folder))] == [n]
        assert not (folder / "journal.log").exists()
        assert load_saved(folder).spec.storage == url
    for verb in (["list"], ["show", "a"], ["best", "b"]):
        assert main(["sweep", *verb]) == 0
    (tmp_path / "all.db").unlink()
    with pytest.raises(ValueError, match=r"all\.db' is missing: there is no such file"):
        read_study(find_sweep("a"))
    assert not (tmp_path / "all.db").exists()


def test_two_folders_do_not_share_a_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    open_study(small_sweep(storage=url), tmp_path / "one")
    with pytest.raises(ValueError, match=r"holds a sweep named small already, that of .*one; give this one another"):
        open_study(small_sweep(storage=url), tmp_path / "two")
    (tmp_path / "one").rename(tmp_path / "moved")
    open_study(small_sweep(storage=url), tmp_path / "moved")


def test_a_folder_keeps_its_storage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    for first, then in ((None, url), (url, None)):
        folder = tmp_path / str(then is None)
        sweep = small_sweep(storage=first)
        open_study(sweep, folder)
        save_sweep(sweep, folder)
        with pytest.raises(ValueError, match=r"holds the sweep small with storage .*; choose another --output"):
            open_study(small_sweep(storage=then), folder)
        open_study(sweep, folder)  # untouched by that


def test_sqlite_takes_each_waiting_trial_once(tmp_path: Path) -> None:
    """Without immediate transactions several writers claim the same one."""
    storage = open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path, to_write=True)
    study = optuna.create_study(storage=storage, study_name="s")
    for i in range(24):
        study.enqueue_trial({"x": i})

    def claim(_: int) -> list[int]:
        own = optuna.load_study(
            study_name="s", storage=open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path, to_write=True)
        )
        return [own.ask().suggest_int("x", 0, 23) for _ in range(6)]

    with ThreadPoolExecutor(4) as pool:
        claimed = [x for claims in pool.map(claim, range(4)) for x in claims]
    assert sorted(claimed) == list(range(24))
    assert sqlite3.connect(tmp_path / "a.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_that_goes_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here: another holds it for longer than SQLite waits."""
    study = open_study(small_sweep(storage=f"sqlite:///{tmp_path}/a.db"), tmp_path)
    trial = study.ask()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    monkeypatch.setattr("sleep_lightning.sweep.sqlite.BUSY_SECONDS", 0.01)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.5, other.rollback).start()
    trial.set_user_attr("a", 1)
    study.tell(trial, [0.5, 1.0])
    said = capsys.readouterr().err
    assert "a.db cannot be used for 0 s (database is locked); running trials continue" in said
    assert [t.user_attrs["a"] for t in finished(study)] == [1]


def test_a_study_is_made_when_the_database_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was there when the storage was opened, and is gone a moment later."""
    monkeypatch.setattr("sleep_lightning.sweep.sqlite.BUSY_SECONDS", 0.01)
    storage = open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path, to_write=True)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, other.rollback).start()
    optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    assert "a.db cannot be used for 0 s (database is locked)" in capsys.readouterr().err
    assert optuna.get_all_study_names(storage) == ["s"]


def test_what_was_told_before_its_answer_was_lost_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.orm import Session

    study = open_study(small_sweep(storage=f"sqlite:///{tmp_path}/a.db"), tmp_path)
    trial, commit, lost = study.ask(), Session.commit, []

    def losing(self: Session) -> None:
        commit(self)
        if not lost:
            lost.append(1)
            raise OperationalError("COMMIT", None, Exception("server closed the connection"))

    with monkeypatch.context() as patched:
        patched.setattr(Session, "commit", losing)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5, 1.0])
    assert lost and [t.values for t in finished(study)] == [[0.5, 1.0]] and len(study.get_trials()) == 1


def test_a_full_disk_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_study(small_sweep(), tmp_path)
    trial, left, sync = study.ask(), [errno.ENOSPC, errno.ENOSPC], os.fsync

    def full(file: int) -> None:
        os.ftruncate(file, os.fstat(file).st_size - 3)  # half the record is there
        raise OSError(left.pop(), "No space left on device") if left else AssertionError

    monkeypatch.setattr(os, "fsync", lambda file: full(file) if left else sync(file))
    trial.set_user_attr("a", 1)
    assert capsys.readouterr().err.count("journal.log cannot be used for 0 s (No space left on device (needs ") == 2
    [read] = read_study(tmp_path).get_trials()
    assert read.user_attrs == {"a": 1}
    left.append(errno.EACCES)
    with pytest.raises(PermissionError):
        trial.set_user_attr("b", 1)


def test_a_server_that_is_not_there_is_said_before_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = spec(tmp_path, "storage: postgresql+psycopg://me@127.0.0.1:9/x\n")
    assert main(["sweep", file]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: storage='postgresql+psycopg://me@127.0.0.1:9/x' cannot be used: ")
    assert "PGPASSWORD or ~/.pgpass" in said and said.count("\n") == 1
    assert main(["sweep", spec(tmp_path, "storage: postgresql+psycopg://me:s3cret@db/x\n")]) == 2
    said = capsys.readouterr().err
    assert "holds a password" in said and "s3cret" not in said


@pytest.mark.long
def test_a_folder_moves_with_its_database_and_a_database_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "a" / "study.db", tmp_path / "databases" / "all.db"
    outside.parent.mkdir()
    for name, file in (("a", inside), ("b", outside)):
        told = ToldStudy(tmp_path / name, storage=f"sqlite:///{file}", name=name)
        open_study(told.sweep, told.folder)
        save_sweep(told.sweep, told.folder)
        told.finish(2, 0.5, 1e6)
    (tmp_path / "a").rename(tmp_path / "moved")
    assert len(finished(read_study(tmp_path / "moved"))) == 1
    sweep = load_saved(tmp_path / "moved")
    assert len(finished(open_study(sweep, tmp_path / "moved"))) == 1
    save_sweep(sweep, tmp_path / "moved")
    assert str(tmp_path) not in (tmp_path / "moved" / "sweep.yaml").read_text()
    outside.parent.rename(tmp_path / "elsewhere")
    there = tmp_path / "elsewhere" / "all.db"
    with pytest.raises(ValueError, match=r"or name its new place: sweep resume .* storage="):
        read_study(tmp_path / "b")
    sweep = load_saved(tmp_path / "b", [f"storage=sqlite:///{there}", "tracking.uri=sqlite:///new.db"])
    assert sweep.base.tracking.uri == f"sqlite:///{Path.cwd()}/new.db"
    assert len(finished(open_study(sweep, tmp_path / "b"))) == 1
    another = load_saved(tmp_path / "b", [f"storage=sqlite:///{tmp_path}/empty.db"])
    with pytest.raises(ValueError, match=r"empty\.db' does not hold the sweep b of"):
        open_study(another, tmp_path / "b")


@pytest.mark.slow
def test_three_that_create_a_database_at_once(tmp_path: Path) -> None:
    """Optuna makes its tables without a lock: unless it is tried again, two of three fail."""
    for attempt in range(3):
        url, ready = f"sqlite:///{tmp_path}/{attempt}.db", threading.Barrier(3)

        def create(i: int, url: str = url, ready: threading.Barrier = ready) -> None:
            ready.wait()
            storage = open_storage(url, tmp_path, to_write=True)
            optuna.create_study(storage=storage, study_name=f"study {i}")

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(create, range(3)))
        storage = open_storage(url, tmp_path, to_write=False)
        assert sorted(optuna.get_all_study_names(storage)) == [f"study {i}" for i in range(3)]


@pytest.mark.long
@pytest.mark.parametrize("log_is_there", [True, False])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_study_that_may_only_be_read_is_shown(
    log_is_there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To another user, while its supervisor has it open, and afterwards."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place, cache = Path(name) / "sweep", Path(name) / "cache"
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setenv("HOME", name)
        cache.mkdir(0o700)
        os.chown(cache, 65534, 65534)
        place.mkdir()
        told = ToldStudy(place, storage=f"sqlite:///{place}/a.db", name="a")
        save_sweep(told.sweep, place)
        told.finish(2, 0.5, 1e6)
        if not log_is_there:
            told.study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
        assert (place / "a.db-wal").exists() == log_is_there
        for path in (Path(name), place, *place.iterdir()):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = sorted(path.name for path in place.iterdir())
        monkeypatch.chdir(name)
        os.seteuid(65534)
        try:
            assert main(["sweep", "show", str(place)]) == 0
        finally:
            os.seteuid(0)
        assert "1 complete" in capsys.readouterr().out
        assert sorted(path.name for path in place.iterdir()) == before


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    open_study(small_sweep(storage=f"sqlite:///{file}"), tmp_path)._storage._backend.engine.dispose()  # type: ignore
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    before = file.read_bytes()
    storage = open_storage(f"sqlite:///{file}", tmp_path, to_write=False)
    assert optuna.get_all_study_names(storage) == ["small"] and file.read_bytes() == before
    with pytest.raises(StorageInternalError):
        optuna.create_study(storage=storage)
    assert file.read_bytes() == before


def test_a_database_that_cannot_be_used_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("no database, but long enough to be told from one that is new" * 20)
    with pytest.raises(ValueError, match=r"file is not a database; check the file, and the permissions") as caught:
        open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path, to_write=True)
    assert "password" not in str(caught.value)
