"""Who runs a sweep, and what it resumes from."""

import fcntl
import threading
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.sweep.folder import (
    find_sweep,
    is_supervised,
    known_sweeps,
    load_saved,
    save_sweep,
    sole_supervisor,
)
from sleep_lightning.sweep.report.publisher import parameters
from sleep_lightning.sweep.spec import load_sweep
from sleep_lightning.sweep.study import FINGERPRINT, definition, open_study
from tests.cli.cli import ROOT
from tests.sweep.studies import ToldStudy
from tests.sweep.sweeps import small_sweep


def test_looking_tells_who_runs_it_and_takes_nothing_away(tmp_path: Path) -> None:
    assert not is_supervised(tmp_path)
    with sole_supervisor(tmp_path):
        assert is_supervised(tmp_path) and is_supervised(tmp_path)
        with pytest.raises(ValueError, match="is being run by another process"):
            sole_supervisor(tmp_path).__enter__()
    assert not is_supervised(tmp_path)


def test_who_looks_keeps_nobody_from_starting(tmp_path: Path) -> None:
    with sole_supervisor(tmp_path):
        pass
    looking = (tmp_path / "supervisor.lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, looking.close).start()
    with sole_supervisor(tmp_path):
        assert is_supervised(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot hold the sweep: Not a directory; choose another --output"):
        sole_supervisor(tmp_path / "file" / "sweep").__enter__()


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'a' is neither a sweep in runs/sweeps/ .* there is none yet"):
        find_sweep("a")
    for name in ("runs/sweeps/b", "runs/sweeps/list", "elsewhere/b"):
        ToldStudy(tmp_path / name)
    assert find_sweep("b") == Path("runs/sweeps/b")
    assert find_sweep("list") == Path("runs/sweeps/list")
    assert find_sweep("elsewhere/b") == Path("elsewhere/b")
    assert known_sweeps() == [Path("runs/sweeps/b"), Path("runs/sweeps/list")]
    with pytest.raises(ValueError, match=r"'c' is neither .*; known are b, list"):
        find_sweep("c")


def test_the_saved_copy_is_whole_and_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("begun", "elsewhere", "specs", "conf"):
        (tmp_path / name).mkdir()
    conf = tmp_path / "conf" / "depo.yaml"
    conf.write_text((ROOT / "conf" / "depo.yaml").read_text())
    spec = tmp_path / "specs" / "a.yaml"
    spec.write_text(
        "name: a\nbase: ../conf/depo.yaml\noverrides: [training.val_every=7]\nseeds: [3, 5]\nbudget: {flops: 1e12}\n"
        "space: {model.d_model: {choices: [32, 64], when: {sleep.n_passes: [2]}}, sleep.n_passes: {low: 1, high: 2}}\n"
    )
    monkeypatch.chdir(tmp_path / "begun")
    first = load_sweep(spec)
    open_study(first, tmp_path / "sweep")
    save_sweep(first, tmp_path / "sweep")
    spec.unlink()
    conf.unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = load_saved(tmp_path / "sweep")
    assert again.spec.space == first.spec.space and again.spec.budget == first.spec.budget
    assert definition(again) == definition(first)
    assert again.base == first.base
    assert again.base.training.val_every == 7
    assert again.base.tracking.uri == f"sqlite:///{tmp_path}/begun/mlflow.db"
    open_study(again, tmp_path / "sweep")  # would refuse another search


def test_a_sweep_of_an_earlier_version_resumes_with_its_own_numbers(tmp_path: Path) -> None:
    spec, folder = tmp_path / "a.yaml", tmp_path / "sweep"
    spec.write_text(f"name: a\nbase: {ROOT}/conf/depo.yaml\nspace: {{sleep.n_passes: {{low: 1, high: 2}}}}\n")
    first = load_sweep(spec)
    study = open_study(first, folder)
    save_sweep(first, folder)
    known = study.user_attrs[FINGERPRINT]
    del known["base"]["model"]["qk_l2norm_eps"]
    study.set_user_attr(FINGERPRINT, known)
    lines = (folder / "base.yaml").read_text().splitlines()
    (folder / "base.yaml").write_text("\n".join(line for line in lines if "qk_l2norm_eps" not in line))
    again = load_saved(folder)
    assert again.base.flat()["model.qk_l2norm_eps"] is None
    open_study(again, folder)
    with pytest.raises(ValueError, match="with another base"):  # its YAML now means other numbers
        open_study(load_sweep(spec), folder)


def test_references_to_the_environment_are_saved_and_logged_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE", "postgresql://me:canary@db/x")
    monkeypatch.setenv("LINE", "export TOKEN=canary")
    spec, folder = tmp_path / "a.yaml", tmp_path / "sweep"
    spec.write_text(
        f"name: a\nbase: {ROOT}/conf/depo.yaml\noverrides: ['tracking.uri=${{oc.env:STORE}}']\n"
        "space: {sleep.n_passes: {low: 1, high: 2}}\nslurm: {setup: ['${oc.env:LINE}', 'echo \\${HOME}']}\n"
    )
    first = load_sweep(spec)
    assert first.base.tracking.uri == "postgresql://me:canary@db/x"
    assert first.spec.slurm.setup == ["export TOKEN=canary", "echo ${HOME}"]
    assert "canary" not in str(logged := parameters(first))
    assert logged["sweep.overrides"] == ["tracking.uri=${oc.env:STORE}"]
    folder.mkdir()
    save_sweep(first, folder)
    assert all("canary" not in file.read_text() for file in folder.iterdir())
    again = load_saved(folder)
    assert again.spec.slurm == first.spec.slurm and again.base.tracking == first.base.tracking


def test_a_copy_without_its_password_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no sweep\.yaml .*; run its own YAML again"):
        load_saved(tmp_path)
    sweep = small_sweep()
    sweep.base.tracking.enabled, sweep.base.tracking.uri = True, "postgresql://me:s3cret@db/x"
    save_sweep(sweep, tmp_path)
    assert "s3cret" not in (tmp_path / "base.yaml").read_text()
    with pytest.raises(
        ValueError, match=r"was saved without its password; give it again: sweep resume .* tracking.uri="
    ):
        load_saved(tmp_path)


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    sweep = small_sweep()
    open_study(sweep, tmp_path)
    sweep.spec.name = "other"
    with pytest.raises(ValueError, match="holds the sweep small, not other; choose another --output"):
        open_study(sweep, tmp_path)


def test_a_sweep_of_the_workers_that_are_gone_is_shown_and_resumed_by_another_launcher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ToldStudy(tmp_path, trials=1)
    told.finish(1, 0.5, 1e6)
    save_sweep(told.sweep, tmp_path)
    file = tmp_path / "sweep.yaml"
    file.write_text(file.read_text().replace("launcher: local", "launcher: workers"))
    assert main(["sweep", "resume", str(tmp_path)]) == 2
    refused = capsys.readouterr().err
    assert "launcher=workers was removed, with sweep work; set launcher: ray, slurm or local" in refused
    assert refused.count("\n") == 1
    for verb in ("show", "report", "best"):
        assert main(["sweep", verb, str(tmp_path)]) == 0
    assert main(["sweep", "resume", str(tmp_path), "launcher=local"]) == 0
    assert "1 complete" in capsys.readouterr().out
    assert load_saved(tmp_path).spec.launcher == "local"


def test_a_spec_is_changed_as_it_is_resumed(tmp_path: Path) -> None:
    sweep = small_sweep()
    open_study(sweep, tmp_path)
    save_sweep(sweep, tmp_path)
    changed = load_saved(tmp_path, ["budget.trials=9", "slurm.partition=gpu", "workers=3"]).spec
    assert (changed.budget.trials, changed.slurm.partition, changed.workers) == (9, "gpu", 3)
    for wrong, message in {"retry=1": "'retry': there is no such key", "workers": "'workers' is not key=value"}.items():
        with pytest.raises(ValueError, match=message):
            load_saved(tmp_path, [wrong])
    with pytest.raises(ValueError, match="holds a sweep named small with another seeds"):
        open_study(load_saved(tmp_path, ["seeds=[7]"]), tmp_path)


def test_a_lost_journal_is_not_a_fresh_start(tmp_path: Path) -> None:
    sweep = small_sweep()
    open_study(sweep, tmp_path)
    run = tmp_path / "trials" / "0000-seed0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("of another point")
    (tmp_path / "journal.log").unlink()
    with pytest.raises(ValueError, match=r"the trials of journal\.log are gone, though .*0000-seed0 was trained"):
        open_study(sweep, tmp_path)


def test_a_sweep_begun_under_a_name_that_is_refused_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = ToldStudy(Path("runs/sweeps/old"), name="a/b", trials=1)
    study.finish(2, 0.5, 1e12)
    save_sweep(study.sweep, study.folder)
    for words in (["show", "old"], ["report", "old"], ["list"], ["best", "old"], ["resume", "old"]):
        assert main(["sweep", *words]) == 0, capsys.readouterr().err
    assert "a/b" in (study.folder / "report.html").read_text() and "error" not in capsys.readouterr().err
