"""Whatever a disk does to the files of a run or a sweep: they are read, or one sentence names the file."""

import copy
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.cli import compare, fit, sweep
from sleep_lightning.compare.table import final_scores
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.checkpoint import RESUME, load_checkpoint
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.folder import save_sweep
from sleep_lightning.sweep.report.content import read_report
from sleep_lightning.sweep.study import open_study
from sleep_lightning.sweep.supervisor import Supervisor
from sleep_lightning.training.evaluation import load_trained
from sleep_lightning.training.module import SleepModule
from tests.cli.cli import ROOT, fit_arguments
from tests.sweep.studies import ToldStudy

pytestmark = [pytest.mark.process, pytest.mark.long]

FILES = ["checkpoints/last.ckpt", "checkpoints/best.ckpt", "run.json", "history.jsonl", "summary.json", "config.yaml",
         "test_n2.json"]  # fmt: skip
SWEEP_FILES = ["journal.log", "sweep.yaml", "base.yaml"]
DAMAGES = 40


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Truncated, emptied, zeroed, with bits flipped, or with garbage in it."""
    kind = chance.choice(["empty", "truncated", "zeros", "bit", "bits", "garbage", "spliced"])
    content = bytearray(whole)
    if kind == "empty":
        return b""
    if kind == "truncated":
        return whole[: chance.randrange(len(whole))]
    if kind == "zeros":
        start = chance.randrange(len(whole))
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    elif kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else 20):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == "garbage":
        return chance.randbytes(chance.randrange(1, 2000))
    else:
        start = chance.randrange(len(whole))
        content[start:start] = chance.randbytes(20)
    return bytes(content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        assert main(fit_arguments(str(folder), 5, "tracking.enabled=false")) == 0
        RunDirectory(folder).record_mlflow_run("0123456789abcdef")
        final_scores(RunDirectory(folder), 2, 5)
    assert all((folder / name).is_file() for name in FILES)
    return folder


def uses(folder: Path, name: str) -> list[Callable[[], Any]]:
    """All that reads a file of a run directory."""
    run = RunDirectory(folder)
    process = FitProcess(load_experiment(None, ["sleep.window_size=24"]), run)

    def resume() -> None:
        job = fit.prepare(None, [], str(folder))
        assert job.lock is not None
        job.lock.close()

    of: dict[str, list[Callable[[], Any]]] = {
        "config.yaml": [run.load_config],
        "last.ckpt": [resume, lambda: load_trained(str(run.last), [])],
        "best.ckpt": [lambda: load_trained(str(folder), [])],
        "run.json": [lambda: run.mlflow_run_id],
        "test_n2.json": [lambda: final_scores(run, 2, 5)],
    }
    return of.get(name, [lambda: (process.summary, process.history, process.flops_spent, process.progress())])


def refusals(uses: list[Callable[[], Any]]) -> list[str]:
    """What the uses of a file say against it."""
    said = []
    for use in uses:
        try:
            use()
        except ValueError as error:
            said.append(str(error))
    return said


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_run_is_named_or_read(trained: Path, tmp_path: Path, name: str) -> None:
    folder, chance, refused = tmp_path / "run", random.Random(name), 0
    shutil.copytree(trained, folder)
    whole = (folder / name).read_bytes()
    for number in range(DAMAGES):
        (folder / name).write_bytes(damaged(whole, chance))
        said = refusals(uses(folder, Path(name).name))
        assert all("\n" not in text and str(folder / name) in text for text in said), f"damage {number}: {said}"
        refused += bool(said)
    # what is covered by checksums, but for bytes without a meaning; elsewhere a flipped digit is another number
    assert refused > (0.9 if name.endswith(".ckpt") else 0.5) * DAMAGES


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_of_a_run_is_refused_with_what_to_do(trained: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / name).write_bytes(b"")
    said = refusals(uses(folder, Path(name).name))
    assert said and all(f"{folder / name} is damaged (" in text and "; " in text for text in said), said


@pytest.mark.parametrize("command", [["fit", "--resume"], ["test", "--checkpoint"], ["predict", "--checkpoint"]])
def test_damage_is_one_line_and_exit_code_2(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    for file in (folder / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    capsys.readouterr()
    assert main([*command, str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder}/checkpoints/") and " is damaged (" in said and said.count("\n") == 1


def restructured(content: Any, chance: random.Random) -> Any:
    """With a key gone or a value replaced by one of another type, one or two levels down."""
    content = copy.copy(content)
    key = chance.choice(sorted(content) if isinstance(content, dict) else range(len(content)))
    if isinstance(value := content[key], dict | list) and value and chance.random() < 0.6:
        content[key] = restructured(value, chance)
    elif chance.random() < 0.4:
        del content[key]
    else:
        content[key] = chance.choice(["text", None, [], torch.zeros(3, 3)])
    return content


@pytest.mark.slow
def test_a_checkpoint_of_another_structure_is_named_or_read(trained: Path, tmp_path: Path) -> None:
    folder, chance, refused = tmp_path / "run", random.Random(0), 0
    shutil.copytree(trained, folder)
    file = RunDirectory(folder).last
    whole = torch.load(file, weights_only=True)
    for number in range(2 * DAMAGES):
        torch.save(restructured(whole, chance), file)
        reads = [*uses(folder, file.name), lambda: SleepModule.load_from_checkpoint(file, weights_only=True)]
        said = refusals(reads)
        assert all("\n" not in text and str(file) in text for text in said), f"damage {number}: {said}"
        refused += bool(said)
    assert refused > DAMAGES


def test_what_only_lightning_finds_is_one_sentence_too(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deeper than the structure that is checked, of an optimizer say."""
    folder, chance, refused = tmp_path / "run", random.Random(1), 0
    shutil.copytree(trained, folder)
    file, config = RunDirectory(folder).last, (folder / "config.yaml").read_bytes()
    whole = torch.load(file, weights_only=True)
    for number in range(12):
        key = ("optimizer_states", "loops", "callbacks", "lr_schedulers")[number % 4]
        torch.save(whole | {key: restructured(whole[key], chance)}, file)
        (folder / "config.yaml").write_bytes(config)
        capsys.readouterr()
        code = main(["fit", "--resume", str(folder), "training.max_steps=6"])
        said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert code == 0 or (code == 2 and len(said) == 1 and f"{file} is damaged (" in said[0]), f"{number}: {said}"
        refused += code == 2
    whole["optimizer_states"][0]["adamw"]["state"][0]["exp_avg"] = torch.zeros(2)
    del whole["optimizer_states"][0]["muon"]["param_groups"]
    torch.save(whole, file)
    assert main(["fit", "--resume", str(folder), "training.max_steps=6"]) == 2
    assert f"error: {file} is damaged (KeyError: 'param_groups'); use {folder}" in capsys.readouterr().err
    assert refused > 3


@pytest.mark.parametrize("what", ["directory", "dangling link"])
def test_no_file_in_its_place_is_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """Said before anything is trained; what it says to do then works."""
    for name in [*FILES[:-1], "lock", "checkpoints/.saved", "learning_curve.png"]:
        folder = tmp_path / what / Path(name).name
        shutil.copytree(trained, folder)
        (folder / name).unlink()
        if what == "directory":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to("nowhere/at all")
        for words in (
            ["fit", "--resume", str(folder)],
            ["test", "--checkpoint", str(folder / "checkpoints/last.ckpt")],
        ):
            capsys.readouterr()
            if (code := main([*words])) or words[0] == "fit":
                said = capsys.readouterr().err
                assert code == 2 and said.startswith(f"error: {folder / name} cannot be read (it is "), said
                assert said.count("\n") == 1
        subprocess.run(said.partition("; put it aside: ")[2], shell=True, check=True)
        assert not os.path.lexists(folder / name)
        again = refusals(uses(folder, Path(name).name))
        assert not any("cannot be read" in text for text in again), again


def test_only_a_checkpoint_that_can_be_used_is_offered(trained: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(trained, run.path)
    shutil.copy(run.last, other := run.checkpoints / "other.ckpt")
    run.last.write_bytes(b"")
    run.best.write_bytes(b"")
    [said] = refusals([lambda: load_checkpoint(run.last)])
    assert said.endswith(f"; use {other} instead, or copy it there: cp -- {other} {run.last}")
    content = torch.load(other, weights_only=True)
    torch.save({key: x for key, x in content.items() if key != "rng"}, other)
    [said] = refusals([lambda: load_checkpoint(run.last, RESUME)])
    assert said.endswith("; train again, in another directory")
    run.last.unlink()
    [said] = refusals(uses(run.path, "last.ckpt")[:1])
    assert said == f"{run.last} is missing, though the run has saved it; start a new run"


def test_compare_refuses_damage_before_it_trains(tmp_path: Path) -> None:
    (tmp_path / "n2-seed0").mkdir()
    (tmp_path / "n2-seed0" / "summary.json").touch()
    config = str(ROOT / "conf" / "rule110.yaml")
    with pytest.raises(ValueError, match=r"summary\.json is damaged \(it is empty\); remove it and resume the run"):
        compare.prepare(config, ["tracking.enabled=false"], ["n2"], [0], 1, str(tmp_path), [])


def resume_sweep(name: str) -> None:
    """All that a supervisor reads before it trains."""
    job = sweep.prepare_resume(name)
    Supervisor(job.sweep, open_study(job.sweep, job.folder), job.folder)


@pytest.mark.long
@pytest.mark.parametrize("name", SWEEP_FILES)
def test_a_damaged_file_of_a_sweep_is_named_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told, chance, refused = ToldStudy(tmp_path / "runs/sweeps/small"), random.Random(name), 0
    told.finish(2, 0.5, 2e12)
    told.prune(4, spent=1e12, whole=2e12)
    told.finish(3, 0.6, 3e12)
    save_sweep(told.sweep, told.folder)
    assert len(read_report(told.folder).trials) == 3
    whole = {file: (told.folder / file).read_bytes() for file in SWEEP_FILES}
    for number in range(DAMAGES):
        for file in SWEEP_FILES:
            (told.folder / file).write_bytes(whole[file])
        (told.folder / name).write_bytes(damaged(whole[name], chance))
        for verb in (["show", "small"], ["best", "small"], ["list"]):
            capsys.readouterr()
            code = main(["sweep", *verb])
            said = capsys.readouterr().err
            assert code in (0, 2) and said.count("\n") == (code == 2), f"damage {number}: {said}"
        said = refusals([lambda: resume_sweep("small")])
        assert all("\n" not in text and "runs/sweeps/small" in text for text in said), f"damage {number}: {said}"
        refused += len(said)
    assert refused > DAMAGES / 3


def test_a_pickled_checkpoint_is_refused_and_no_code_of_it_runs(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"experiment": Planted(), "state_dict": {}}, tmp_path / "planted.ckpt")
    with pytest.raises(ValueError, match=r"it holds posix\.mkdir, which could run code and is never loaded"):
        load_checkpoint(tmp_path / "planted.ckpt")
    assert not (tmp_path / "ran").exists()
