"""A sweep that is refused leaves nothing behind: no folder, no study, and what was there as it was."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.sweep.folder import save_sweep, sole_supervisor
from sleep_lightning.sweep.storage import open_storage
from sleep_lightning.sweep.undo import NewFiles
from tests.cli.cli import ROOT
from tests.sweep.studies import ToldStudy

AWAY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spec(text: str = "", tracking: str = "tracking.enabled=false", name: str = "small") -> str:
    file = Path("spec.yaml")
    file.write_text(
        f"name: {name}\nbase: {ROOT}/conf/depo.yaml\noverrides: {json.dumps([tracking])}\n"
        "space: {sleep.n_passes: {choices: [1, 2, 3]}}\nsampler: grid\nbudget: {trials: 3}\n" + text
    )
    return str(file)


def everything() -> dict[str, bytes | None]:
    """All files below here, with what they hold; of a database, all it holds."""
    found: dict[str, bytes | None] = {}
    for path in sorted(Path().rglob("*")):
        if path.suffix == ".db" and path.stat().st_size:
            with closing(sqlite3.connect(path)) as database:
                found[str(path)] = "\n".join(database.iterdump()).encode()
        elif not path.name.endswith((".db-wal", ".db-shm")):
            found[str(path)] = None if path.is_dir() else path.read_bytes()
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = everything()
    assert main(["sweep", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert everything() == before
    return said


def no_launcher() -> list[str]:
    return [spec("launcher: slurm\n")]


def no_database() -> list[str]:
    return [spec("storage: postgresql+psycopg://nobody@127.0.0.1:9/sweeps\n")]


def no_tracking() -> list[str]:
    return [spec(tracking=f"tracking.uri={AWAY}")]


def no_tracking_and_a_database_in_the_folder() -> list[str]:
    return [spec("storage: sqlite:///runs/sweeps/small/study.db\n", tracking=f"tracking.uri={AWAY}")]


def no_tracking_elsewhere() -> list[str]:
    return [spec(tracking=f"tracking.uri={AWAY}"), "--output", "a/b/c"]


def no_value() -> list[str]:
    return [spec("constraints: {train_flops: many}\n")]


def no_gpu() -> list[str]:
    return [spec("devices: [63]\n")]


def no_name() -> list[str]:
    return [spec(name="../small")]


def damaged_records() -> list[str]:
    Path("records.jsonl").write_text("x\n")
    return [spec(), "--records", "records.jsonl"]


def a_file_in_its_place() -> list[str]:
    Path("file").write_text("")
    return [spec(), "--output", "file/sweep"]


def another_sweep_in_the_folder() -> list[str]:
    ToldStudy(Path("there"), name="other").ask(1)
    return [spec(), "--output", "there"]


def another_search_of_that_name() -> list[str]:
    ToldStudy(Path("runs/sweeps/small")).ask(1)
    return [spec()]


def lost_trials() -> list[str]:
    run = Path("runs/sweeps/small/trials/0000-seed0")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    return [spec()]


@pytest.mark.parametrize(
    "way",
    [
        no_launcher,
        no_database,
        no_tracking,
        no_tracking_and_a_database_in_the_folder,
        no_tracking_elsewhere,
        no_value,
        no_gpu,
        no_name,
        damaged_records,
        a_file_in_its_place,
        another_sweep_in_the_folder,
        another_search_of_that_name,
        lost_trials,
    ],
)
def test_nothing_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("PATH", "")  # no sbatch
    monkeypatch.setenv("SLEEP_LIGHTNING_NATIVE", "0")  # nor a compiler
    refused(capsys, *way())


def test_a_shared_database_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{Path('shared.db').absolute()}"
    ToldStudy(Path("runs/sweeps/other"), name="other", storage=url).ask(1)
    refused(capsys, spec(f"storage: {url}\n", tracking=f"tracking.uri={AWAY}"))
    theirs = refused(capsys, spec(f"storage: {url}\n", name="other"), "--output", "mine")
    assert "holds a sweep named other already" in theirs
    assert optuna.get_all_study_names(open_storage(url, Path(), to_write=False)) == ["other"]


def test_a_sweep_that_has_begun_stays_when_it_cannot_be_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    study = ToldStudy(Path("runs/sweeps/small"))
    study.finish(2, 0.5, 2e12)
    save_sweep(study.sweep, study.folder)
    with sole_supervisor(study.folder):
        refused(capsys, "resume", "small")
    refused(capsys, "resume", "small", "tracking.enabled=true", f"tracking.uri={AWAY}")


def test_what_others_put_into_the_folder_stays(tmp_path: Path) -> None:
    new = NewFiles(tmp_path / "a" / "b", None)
    with sole_supervisor(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "theirs").touch()
        new.remove()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["theirs"]


def test_who_waits_for_a_lock_that_was_removed_takes_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleep_lightning.sweep import folder as module

    folder, taken, take = tmp_path / "sweep", [], module.take

    def removed_meanwhile(file: object, **how: object) -> bool:
        if not taken:
            (folder / module.LOCK).unlink()  # by the process that held it
        taken.append(file)
        return take(file, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "take", removed_meanwhile)
    with module.sole_supervisor(folder):
        monkeypatch.undo()
        assert module.is_supervised(folder) and len(taken) == 2
