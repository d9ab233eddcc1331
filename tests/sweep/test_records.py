"""Finished runs travel in a file: what one sweep has trained, another does not train again."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_json
from sleep_lightning.runs.history import write_history
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.records import Records
from sleep_lightning.sweep.share import parse_share, share_of
from sleep_lightning.sweep.space import Parameter, Space
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.study import finished, open_study
from sleep_lightning.sweep.supervisor import Supervisor
from tests.cli.cli import ROOT
from tests.sweep.stand_in import stand_for_fit
from tests.sweep.sweeps import small_sweep


def run_in(folder: Path, seed: int = 0, **done: float) -> FitProcess:
    """A run in a folder; finished with an exact match if one is given."""
    base = load_experiment(ROOT / "conf" / "depo.yaml", [f"training.seed={seed}", f"training.run_dir={folder}"])
    run = FitProcess(base, RunDirectory(folder))
    if done:
        folder.mkdir(parents=True)
        row = {"step": 6, "cost/train_flops": 3.0, "cost/wall_s": 7.0, "exact_match": 1 / 3}
        (folder / "history.json").write_text(json.dumps({"history": [row]}))
        scores = {"token_accuracy": 0.5, "loss": 1.0, "train_flops": 3.0, "wall_s": 7.0, "checkpoint": "x"} | done
        (folder / "summary.json").write_text(json.dumps({"status": "FINISHED", **scores}))
        run.directory.record_experiment(base)
    return run


def test_a_run_is_found_by_what_it_trains_and_not_by_its_place(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    assert records.add(run_in(tmp_path / "a", exact_match=1 / 3))
    assert not records.add(run_in(tmp_path / "again", exact_match=0.7))
    assert not records.add(run_in(tmp_path / "unfinished", seed=5))
    read = Records(records.path)
    assert len(read) == 1
    other, same = run_in(tmp_path / "b", seed=1), run_in(tmp_path / "c")
    assert not read.restore(other)
    assert not other.directory.path.exists()
    assert read.restore(same)
    assert same.summary is not None
    assert same.summary["exact_match"] == pytest.approx(1 / 3, abs=1e-7)
    assert "checkpoint" not in same.summary
    assert same.history == [{"step": 6, "cost/train_flops": 3.0, "exact_match": pytest.approx(1 / 3, abs=1e-7)}]
    assert same.directory.load_config() == same.experiment
    assert not read.restore(same)  # begun here


def test_files_below_the_current_directory_are_those_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    for name in ("here", "there"):
        shutil.copytree(ROOT / "conf", tmp_path / name / "conf")
        monkeypatch.chdir(tmp_path / name)
        directory = run_in(tmp_path / name / "run", exact_match=0.5).directory
        run = FitProcess(load_experiment("conf/text.yaml").anchored(), directory)
        run.experiment.training.prelude_cache = str(tmp_path / name / "cache")
        directory.record_experiment(load_experiment("conf/text.yaml"))
        assert str(tmp_path) in json.dumps(run.experiment.to_dict()["task"])
        assert Records(path).add(run) == (name == "here")
    assert str(tmp_path) not in path.read_text()


def text_run(folder: Path, *changes: str, done: bool = False) -> FitProcess:
    """A run on ``data.jsonl`` of the current directory, with a plug-in of ``shared_by_name.py`` there."""
    plugged = "training.callbacks=[{class_path: shared_by_name.Mine}]"
    keys = ["task.train=data.jsonl", plugged, f"training.run_dir={folder}", *changes]
    run = FitProcess(load_experiment(ROOT / "conf" / "text.yaml", keys), RunDirectory(folder))
    if done:
        folder.mkdir()
        write_history(run.directory.history, [{"step": 10, "cost/train_flops": 3.0, "exact_match": 0.5}])
        scores = {"exact_match": 0.5, "token_accuracy": 0.5, "loss": 1.0, "train_flops": 3.0, "wall_s": 7.0}
        write_json(run.directory.summary, {"status": "FINISHED", **scores})
        run.directory.record_experiment(run.experiment)
    return run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with files that were written an hour ago."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copy(ROOT / "conf" / "notes.jsonl", "data.jsonl")
    Path("shared_by_name.py").write_text("import lightning.pytorch as pl\nclass Mine(pl.Callback): pass\n")
    for name in ("data.jsonl", "shared_by_name.py"):
        os.utime(name, (time.time() - 3600,) * 2)
    yield tmp_path
    sys.modules.pop("shared_by_name", None)


@pytest.mark.parametrize(
    ("name", "key"), [("data.jsonl", "task.train"), ("shared_by_name.py", r"training.callbacks\[0\]")]
)
def test_other_data_or_code_of_the_same_name_is_another_run(place: Path, name: str, key: str) -> None:
    records, file = Records(place / "records.jsonl"), Path(name)
    assert records.add(text_run(place / "a", done=True))
    before = file.read_text()
    assert Records(records.path).restore(text_run(place / "same"))
    file.write_text(before.replace(" the ", " a ") if name == "data.jsonl" else before + "x = 1\n")
    os.utime(file, (time.time() - 60,) * 2)
    with pytest.warns(UserWarning, match=f"other is trained: .*records.jsonl has it with another {key}="):
        assert not Records(records.path).restore(text_run(place / "other"))
    assert not (place / "other").exists()
    assert records.add(text_run(place / "b", done=True))
    assert len(records) == len(Records(records.path)) == 2
    file.write_text(before)
    assert Records(records.path).restore(text_run(place / "again"))


def test_a_record_of_an_earlier_version_has_no_hashes_and_is_taken(place: Path) -> None:
    records = Records(place / "records.jsonl")
    records.add(text_run(place / "a", done=True))
    record = json.loads(records.path.read_text())
    assert sorted(record.pop("files")) == ["task.train", "training.callbacks[0]"]
    records.path.write_text(json.dumps(record) + "\n")
    Path("data.jsonl").write_text(Path("data.jsonl").read_text().replace(" the ", " a "))
    assert Records(records.path).restore(text_run(place / "b"))
    assert not Records(records.path).add(text_run(place / "c", done=True))


def test_what_a_file_held_in_training_is_not_known_once_it_has_changed(place: Path) -> None:
    run = text_run(place / "a", done=True)
    os.utime("data.jsonl", (time.time() + 60,) * 2)
    assert Records(place / "records.jsonl").add(run)
    assert list(json.loads(Path("records.jsonl").read_text())["files"]) == ["training.callbacks[0]"]


def test_a_directory_that_was_resumed_for_longer_is_not_recorded_as_the_shorter_run(place: Path) -> None:
    longer, records = text_run(place / "a", "training.max_steps=777", done=True), Records(place / "records.jsonl")
    shorter = text_run(place / "a")
    with pytest.warns(UserWarning, match="a is not added to .*: it was trained with training.max_steps=777, not"):
        assert not records.add(shorter)
    assert not records.path.exists() and records.add(longer)


def test_numbers_that_are_rounded_in_the_file_are_found(tmp_path: Path) -> None:
    """As of N = 3 a residual scale of 1 / N."""
    runs = [run_in(tmp_path / "a", exact_match=0.5), run_in(tmp_path / "b")]
    for run in runs:
        run.experiment.model.residual_scale = 1 / 3  # type: ignore[union-attr]
    runs[0].directory.record_experiment(runs[0].experiment)
    records = Records(tmp_path / "records.jsonl")
    assert records.add(runs[0])
    assert not Records(records.path).add(runs[0])
    assert Records(records.path).restore(runs[1])


def test_a_line_cut_off_is_dropped_and_files_are_joined_by_cat(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    Records(path).add(run_in(tmp_path / "a", exact_match=0.1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    cut = Records(path)
    assert len(cut) == 1
    cut.add(run_in(tmp_path / "b", seed=1, exact_match=0.2))
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 2
    path.write_bytes(path.read_bytes() + whole)
    assert len(Records(path)) == 2


@pytest.mark.parametrize("line", ["", "{}", "[]", "nonsense", '{"experiment": {"nonsense": 1}, "summary": {}}'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    Records(path).add(run_in(tmp_path / "a", exact_match=0.1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DamagedFile, match=r"line 2: .*; remove that line"):
        len(Records(path))


@pytest.mark.parametrize("name", ["", "no/folder/file", ".", "x" * 300])
def test_records_must_be_a_file_that_can_be_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", str(ROOT / "sweeps" / "panel_ring.yaml"), "--records", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --records")
    assert error.count("\n") == 1


def run(folder: Path, records: Path, sweep: Sweep) -> tuple[optuna.Study, int]:
    """The study at its end, and the number of runs that were trained."""
    study = open_study(sweep, folder)
    for _ in Supervisor(sweep, study, folder, records=Records(records)).run(poll_seconds=0.01):
        pass
    return study, len(list(folder.glob("trials/*/steps")))


@pytest.mark.process
def test_shares_of_a_sweep_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with monkeypatch.context() as patch:
        for name in ("command", "begin_command", "resume_command"):
            patch.setattr(FitProcess, name, getattr(FitProcess, name))  # restored at the end
        stand_for_fit()
        space = {"sleep.n_passes": Parameter([1, 2])}
        whole = small_sweep(trials=2, sampler="grid", seeds=[3, 4, 5])
        whole = Sweep(whole.spec, Space(space), whole.base)
        files = []
        for share, seeds in (("1/2", [3, 5]), ("2/2", [4])):
            part = share_of(whole, share)
            assert part.spec.seeds == seeds
            files.append(tmp_path / f"{part.spec.name}.jsonl")
            _, trained = run(tmp_path / part.spec.name, files[-1], part)
            assert trained == 2 * len(seeds)
            assert run(tmp_path / part.spec.name, files[-1], part)[1] == trained
        together = tmp_path / "all.jsonl"
        together.write_text("".join(file.read_text() for file in files))
        study, trained = run(tmp_path / "whole", together, whole)
    assert trained == 0
    assert [t.user_attrs["exact_match_by_seed"] for t in finished(study)] == [[0.1] * 3, [0.2] * 3]
    assert len(Records(together)) == 6


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/2/3", "a/b", "-1/2", "1/99999", "1 /2"])
def test_a_share_is_i_of_n(text: str) -> None:
    with pytest.raises(ValueError, match=r"--share .* must be I/N"):
        parse_share(text)


def test_a_share_without_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="--share 4/4 is empty: the sweep has 3 seeds"):
        share_of(small_sweep(seeds=[1, 2, 3]), "4/4")
