"""Interrupted, moved and changed runs resume as if nothing had been, or say in one sentence why they cannot."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.history import HistoryFile
from sleep_lightning.runs.signals import STOP_SIGNALS, StopReason
from sleep_lightning.tracking.mlflow_store import open_client
from tests.cli.cli import command, environment, fit_arguments, start
from tests.cli.test_fit import mlflow_run

pytestmark = pytest.mark.long
STEPS = 24
Where = Literal["setup", "swallowed", "step", "before validation", "in validation", "after validation"]


class Killed(BaseException):
    """Ends a training as kill -9 would: no code of ours runs at its sight."""


class Interrupts(pl.Callback):
    """Kills the run, or sends it a signal, at a step."""

    def __init__(self, step: int, where: Where, number: int = 0) -> None:
        self.step, self.where, self.number = step, where, number

    def strike(self, trainer: pl.Trainer, where: Where) -> None:
        if trainer.global_step == self.step and self.where == where and trainer.state.fn == "fit":
            if not self.number:
                raise Killed
            os.kill(os.getpid(), self.number)

    def setup(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self.strike(trainer, "setup")
        with suppress(KeyboardInterrupt):  # as a destructor does
            self.strike(trainer, "swallowed")

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "step")

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "before validation")

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "in validation")

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "after validation")


def arguments(val_every: int, checkpoint_every: int, *more: str, run: str = "run") -> list[str]:
    cadence = [f"training.val_every={val_every}", f"training.checkpoint_every={checkpoint_every}"]
    return fit_arguments(run, STEPS, "tracking.enabled=false", *cadence, *more)


def interrupt(step: int, where: Where, number: int = 0) -> str:
    init = f"{{step: {step}, where: {where}, number: {number}}}"
    return f"training.callbacks=[{{class_path: tests.cli.test_resume.Interrupts, init_args: {init}}}]"


def resume(run: str, *more: str) -> int:
    return main(["fit", "--resume", run, "training.callbacks=[]", *more])


def what_is_left(run: Path) -> tuple[list[tuple[float, float]], int, Any]:
    """Validations, the step of the best checkpoint, and the final weights."""
    last, best = (torch.load(run / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("last", "best"))
    rows = HistoryFile(RunDirectory(run).history, "").read()
    assert rows[-1]["step"] == last["global_step"] == STEPS
    assert rows[: len(last["history"])] == last["history"]
    assert len(rows) - len(last["history"]) == (last["history"][-1]["step"] != STEPS), "the last step's, once"
    return [(row["step"], row["exact_match"]) for row in rows], best["global_step"], last["state_dict"]


def assert_whole(run: Path, whole: Path) -> None:
    (rows, best, weights), (wanted_rows, wanted_best, wanted) = what_is_left(run), what_is_left(whole)
    assert rows == wanted_rows and best == wanted_best
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """Uninterrupted runs, by their cadences."""
    root = tmp_path_factory.mktemp("whole")
    runs = {cadence: root / f"{cadence[0]}-{cadence[1]}" for cadence in ((6, 6), (4, 6), (6, 4), (7, 5))}
    for cadence, run in runs.items():
        assert main(arguments(*cadence, run=str(run))) == 0
    return runs


@pytest.mark.parametrize(
    ("cadence", "step", "where"),
    [
        ((6, 6), 7, "step"),
        ((6, 6), 12, "before validation"),
        ((6, 6), 12, "in validation"),
        ((6, 6), 12, "after validation"),
        ((4, 6), 13, "step"),
        ((6, 4), 12, "after validation"),
        ((7, 5), 22, "step"),
        ((7, 5), 3, "step"),
        ((7, 5), 6, "step"),  # saved, not yet validated
    ],
)
def test_a_kill_loses_no_validation_and_not_the_best(
    whole: dict[tuple[int, int], Path], tmp_path: Path, cadence: tuple[int, int], step: int, where: Where
) -> None:
    run = str(tmp_path / "run")
    with pytest.raises(Killed):
        main(arguments(*cadence, interrupt(step, where), run=run))
    assert resume(run) == 0
    assert_whole(Path(run), whole[cadence])


@pytest.mark.parametrize(
    ("step", "where", "number", "stops_after"),
    [
        (6, "step", signal.SIGTERM, 7),
        (11, "step", signal.SIGHUP, 12),
        (12, "in validation", signal.SIGTERM, 13),
        (23, "step", signal.SIGTERM, STEPS),
        (STEPS, "in validation", signal.SIGUSR1, STEPS),
    ],
)
def test_a_signal_saves_a_whole_step(
    whole: dict[tuple[int, int], Path], tmp_path: Path, step: int, where: Where, number: int, stops_after: int
) -> None:
    run = tmp_path / "run"
    assert main(arguments(6, 6, interrupt(step, where, number), run=str(run))) == 128 + number
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == stops_after
    assert [row["step"] for row in checkpoint["history"]] == [s for s in (6, 12, 18, 24) if s <= stops_after]
    assert json.loads((run / "summary.json").read_text())["status"] == "KILLED"
    assert resume(str(run)) == 0
    assert_whole(run, whole[6, 6])


@pytest.mark.parametrize("where", ["setup", "swallowed"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_before_the_first_step_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, where: Where
) -> None:
    monkeypatch.chdir(tmp_path)
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    assert main([*fit_arguments("run", 2), store, interrupt(0, where, number)]) == 128 + number
    assert "resume with: python -m sleep_lightning fit --resume run" in capsys.readouterr().err
    assert mlflow_run(tmp_path)[1].info.status == "KILLED"
    assert not RunDirectory(Path("run")).last.exists()
    assert resume("run") == 0
    assert mlflow_run(tmp_path)[1].info.status == "FINISHED"
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    [mask] = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt:")]
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_is_imported_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, *fit_arguments("run", 2))
    while not catches(process.pid, signal.SIGTERM):
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + number, f"stopped by {number.name}\n")


def test_a_moved_run_remembers_its_best(whole: dict[tuple[int, int], Path], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        main(arguments(6, 6, interrupt(19, "step"), run=str(tmp_path / "a")))
    before = torch.load(tmp_path / "a" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert resume(str(tmp_path / "b")) == 0
    assert_whole(tmp_path / "b", whole[6, 6])
    [state] = [one for key, one in before.items() if key.startswith("ModelCheckpoint")]
    assert float(state["best_model_score"]) > 0
    assert str(tmp_path) not in repr(before)


def test_the_best_of_lightnings_own_callback_is_read(tmp_path: Path) -> None:
    """Runs of version 0.1.0 saved absolute paths."""
    with pytest.raises(Killed):
        main(arguments(6, 6, interrupt(13, "step"), run=str(tmp_path / "a")))
    file = tmp_path / "a" / "checkpoints" / "last.ckpt"
    saved = torch.load(file, weights_only=True)
    [key] = [key for key in saved["callbacks"] if key.startswith("ModelCheckpoint{'monitor': 'val/exact_match'")]
    there = "/gone/checkpoints/best.ckpt"
    score = torch.tensor(2.0)  # out of reach: best.ckpt must stay
    paths = {"best_model_path": there, "kth_best_model_path": there, "dirpath": "/gone/checkpoints"}
    saved["callbacks"][key] |= {**paths, "best_k_models": {there: score}, "best_model_score": score, "kth_value": score}
    torch.save(saved, file)
    best = (tmp_path / "a" / "checkpoints" / "best.ckpt").read_bytes()
    assert resume(str(tmp_path / "a")) == 0
    assert (tmp_path / "a" / "checkpoints" / "best.ckpt").read_bytes() == best


def test_a_lost_best_score_is_that_of_best_or_the_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Killed):
        main(arguments(6, 6, interrupt(13, "step"), run=str(tmp_path / "a")))
    run = RunDirectory(tmp_path / "a")
    saved, best = (torch.load(file, weights_only=True) for file in (run.last, run.best))
    [key] = [key for key in saved["callbacks"] if key.startswith("ModelCheckpoint{'monitor': 'val/exact_match'")]
    saved["callbacks"] = {"EarlyStopping": {"wait_count": 1}}
    torch.save(saved, run.last)
    best["callbacks"][key] |= dict.fromkeys(("best_model_score", "kth_value"), torch.tensor(2.0))  # out of reach
    best["callbacks"][key]["best_k_models"] = {"best.ckpt": torch.tensor(2.0)}
    torch.save(best, run.best)
    content = run.best.read_bytes()
    shutil.copytree(run.path, tmp_path / "b")
    assert resume(str(run.path)) == 0
    assert "the checkpoint lacks the best score: it is that of best.ckpt, 2.000" in capsys.readouterr().err
    assert run.best.read_bytes() == content
    other = RunDirectory(tmp_path / "b")
    other.best.unlink()
    assert resume(str(other.path)) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"{other.last} is damaged (LookupError: it lacks the state of ModelCheckpoint, so the best score" in line


@pytest.mark.parametrize("content", [None, b"", b"PK nonsense"])
def test_a_lost_best_checkpoint_is_said_and_replaced(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its score is forgotten: whatever is best from then on is kept."""
    with pytest.raises(Killed):
        main(arguments(6, 6, interrupt(13, "step"), run=str(tmp_path / "a")))
    run = RunDirectory(tmp_path / "a")
    run.best.unlink()
    if content is not None:
        run.best.write_bytes(content)
    assert resume(str(run.path)) == 0
    assert f"{run.best} is missing or damaged, and with it the best" in capsys.readouterr().err
    step = torch.load(run.best, weights_only=True)["global_step"]
    later = [row for row in HistoryFile(run.history, "").read() if row["step"] > 12]
    best = max(later, key=lambda row: (row["exact_match"], -row["step"]))
    assert step == best["step"]


def test_a_plugin_that_its_class_does_not_build_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer = "training.optimizer={class_path: torch.optim.SGD, init_args: {lr: [1]}}"
    assert main(arguments(6, 6, optimizer, run=str(tmp_path / "a"))) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: training.optimizer.class_path='torch.optim.SGD' cannot be built: TypeError: ")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_ranks_the_first_says_what_all_find(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert main(["fit", "--resume", "none"]) == 2
    assert capsys.readouterr().err.count("none is not a run directory") == (rank == "0")


def test_what_a_resume_changes_is_kept(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(Killed):
        main(arguments(6, 6, interrupt(13, "step"), run=str(run.path)))
    stopped = interrupt(27, "step", signal.SIGTERM)
    assert main(["fit", "--resume", str(run.path), "training.max_steps=30", stopped]) == StopReason.SIGTERM
    assert resume(str(run.path)) == 0
    assert json.loads(run.summary.read_text())["steps"] == 30
    sessions = json.loads(run.record.read_text())["sessions"]
    assert [(one["step"], one["changes"].get("training.max_steps")) for one in sessions] == [
        (0, None),
        (12, [24, 30]),
        (28, None),
    ]


@pytest.mark.parametrize("change", ["training.muon_lr=5.0", "training.seed=1", "model.d_model=32", "sleep.n_passes=3"])
def test_what_a_resume_cannot_change_is_refused(
    whole: dict[tuple[int, int], Path], capsys: pytest.CaptureFixture[str], change: str
) -> None:
    run = whole[6, 6]
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "lock"}
    assert main(["fit", "--resume", str(run), change]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {change}: this run was begun with")
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "lock"} == before


def test_missing_state_is_not_a_fresh_start(
    whole: dict[tuple[int, int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(whole[6, 6], run.path)
    run.last.unlink()
    assert main(["fit", "--resume", str(run.path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    command = f"cp -- {run.best} {run.last}"
    assert line == (f"error: {run.last} is missing, though the run has saved it; resume from its best one: {command}")
    shutil.copy(run.best, run.last)
    assert resume(str(run.path)) == 0
    assert_whole(run.path, whole[6, 6])
    run.config.write_text("")
    assert main(["fit", "--resume", str(run.path)]) == 2
    assert f"{run.config} is empty" in capsys.readouterr().err


@pytest.mark.parametrize(("val_every", "checkpoint_every"), [(100, 5), (5, 100)])
def test_early_stopping_saves_and_a_lost_checkpoint_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], val_every: int, checkpoint_every: int
) -> None:
    """Neither the cadences nor a validation say that there was one."""
    run, stop = RunDirectory(tmp_path / "run"), "lightning.pytorch.callbacks.EarlyStopping"
    options = "{monitor: val/exact_match, patience: 1, mode: max, min_delta: 1.0, check_on_train_epoch_end: false}"
    ends = f"training.callbacks=[{{class_path: {stop}, init_args: {options}}}]"
    if val_every == 100:
        assert main(arguments(val_every, checkpoint_every, interrupt(18, "step", signal.SIGTERM), run=str(run.path)))
        assert torch.load(run.last, weights_only=True)["global_step"] == 19
    else:
        assert main(arguments(val_every, checkpoint_every, ends, run=str(run.path))) == 0
        assert torch.load(run.last, weights_only=True)["global_step"] == 10
        run.summary.unlink()
    run.last.unlink()
    assert main(["fit", "--resume", str(run.path), "training.checkpoint_every=1000"]) == 2
    assert "last.ckpt is missing, though the run has saved it" in capsys.readouterr().err


def test_a_discarded_step_leaves_its_best_and_no_history(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(Killed):
        main(arguments(4, 10, interrupt(19, "step"), run=str(run.path)))
    best = torch.load(run.best, weights_only=True)
    assert resume(str(run.path), "training.val_every=100", "training.max_steps=11") == 0
    assert [row["step"] for row in HistoryFile(run.history, "").read()] == [4, 8, 11]
    [key] = [key for key in best["callbacks"] if key.startswith("ModelCheckpoint")]
    last = torch.load(run.last, weights_only=True)["callbacks"][key]
    assert last["best_model_score"] == best["callbacks"][key]["best_model_score"]


def steps_of(run: RunDirectory) -> list[float]:
    return [row["step"] for row in HistoryFile(run.history, "").read()]


def test_the_validation_after_the_last_step_is_in_the_history_once(
    whole: dict[tuple[int, int], Path], tmp_path: Path
) -> None:
    """Also after a resume that finds nothing left; a longer run is without, as one that never stopped there."""
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(whole[7, 5], run.path)
    for _ in range(2):
        assert steps_of(run) == [7, 14, 21, 24]
        last, summary = HistoryFile(run.history, "").read()[-1], json.loads(run.summary.read_text())
        assert [last["exact_match"], last["loss"]] == [summary["exact_match"], summary["loss"]]
        assert last["cost/train_flops"] == summary["train_flops"] and "24" in summary["data_digests"]
        assert resume(str(run.path)) == 0
    assert resume(str(run.path), "training.max_steps=30") == 0
    assert steps_of(run) == [7, 14, 21, 28, 30]


def test_a_run_shorter_than_its_cadence_has_one_validation_and_a_stopped_one_none(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert main(arguments(100, 100, interrupt(2, "step", signal.SIGTERM), run=str(run.path))) == 128 + signal.SIGTERM
    assert steps_of(run) == []
    assert resume(str(run.path)) == 0
    assert steps_of(run) == [STEPS]


def test_a_longer_run_is_not_finished_and_a_shorter_one_is_refused(
    whole: dict[tuple[int, int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(whole[6, 6], run.path)
    with pytest.raises(Killed):
        main(["fit", "--resume", str(run.path), "training.max_steps=36", interrupt(27, "step")])
    assert json.loads(run.summary.read_text())["status"] == "KILLED"
    for change, said in (
        ("training.max_steps=12", "training.max_steps=12: the run has trained 24 steps; give more, or drop it"),
        ("training.run_dir=elsewhere", "training.run_dir='elsewhere': this run was begun with"),
    ):
        assert main(["fit", "--resume", str(run.path), change]) == 2
        assert said in capsys.readouterr().err


def test_a_checkpoint_of_another_run_or_without_its_state_is_refused(
    whole: dict[tuple[int, int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(whole[6, 6], run.path)
    checkpoint = torch.load(run.last, weights_only=True)
    another = checkpoint["experiment"] | {"training": checkpoint["experiment"]["training"] | {"seed": 7}}
    for change, said in (
        ({"experiment": another}, "is of another run: training.seed is 7, in config.yaml 0"),
        ({"optimizer_states": []}, "is damaged (it lacks optimizer_states)"),
        ({"TaskDataModule": None}, "is damaged (TaskDataModule is None)"),
    ):
        torch.save(checkpoint | change, run.last)
        assert main(["fit", "--resume", str(run.path)]) == 2
        assert said in capsys.readouterr().err


def test_a_store_left_behind_is_missed_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert main(fit_arguments("run", 2)) == 0
    shutil.copytree("run", tmp_path / "b" / "run")
    shutil.move("run", "moved")
    monkeypatch.chdir(tmp_path / "b")
    assert main(["fit", "--resume", "run", "training.max_steps=4"]) == 2
    assert f"there is no file {tmp_path}/b/mlflow.db, though the run is recorded in it" in capsys.readouterr().err
    assert not Path("mlflow.db").exists()
    store = f"tracking.uri=sqlite:///{tmp_path}/a/mlflow.db"
    assert main(["fit", "--resume", "run", "training.max_steps=4", store]) == 0
    assert main(["fit", "--resume", "run"]) == 0


def test_a_copied_run_has_an_mlflow_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert main(fit_arguments("run", 2, f"tracking.uri={store}")) == 0
    first = RunDirectory(Path("run")).mlflow_run_id
    shutil.copytree("run", "copy")
    assert main(["fit", "--resume", "copy", "training.max_steps=3"]) == 0
    own = RunDirectory(Path("copy")).mlflow_run_id
    client = open_client(store)
    assert own is not None and own != first and client.get_run(own).data.tags["copied_from"] == first
    assert main(["fit", "--resume", "copy", "training.max_steps=4"]) == 0
    shutil.move("run", "moved")
    assert main(["fit", "--resume", "moved", "training.max_steps=3"]) == 0
    assert [RunDirectory(Path(name)).mlflow_run_id for name in ("copy", "moved")] == [own, first]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a mount of its own")
@pytest.mark.process
@pytest.mark.slow
def test_a_run_on_a_read_only_disk_is_evaluated_and_not_resumed(
    whole: dict[tuple[int, int], Path], tmp_path: Path
) -> None:
    shutil.copytree(whole[6, 6], tmp_path / "run")
    mount = "mount --bind run run && mount -o remount,ro,bind run run"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("mounts are not allowed")
    said = {}
    for words in ("test --checkpoint run", "fit --resume run training.max_steps=30", "fit training.run_dir=run/new"):
        asked = f"{mount} && exec {shlex.join(command())} {words}"
        options: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True}
        said[words] = subprocess.run(["unshare", "-m", "sh", "-c", asked], **options)
    evaluated, resumed, new = said.values()
    assert evaluated.returncode == 0, evaluated.stderr
    where = "error: run cannot be written (Permission denied), and training writes there; make it writable, or train in"
    assert resumed.returncode == 2 and resumed.stderr.startswith(where) and resumed.stderr.count("\n") == 1
    refused = "error: training.run_dir='run/new' cannot be written: Read-only file system; choose another\n"
    assert (new.returncode, new.stderr) == (2, refused)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (["--resume", "x=y/z", "training.max_steps=3"], "x=y/z is not a run directory"),
        (["--resume", "k" * 300], "cannot be a path: a name in it has over 255 bytes"),
        (
            fit_arguments("locked", 2, "tracking.enabled=false"),
            "locked/lock cannot be read (it is a directory); put it aside: mv",
        ),
        (["training.run_dir=a\udcff"], "'training.run_dir=a\\udcff' is not UTF-8 text; give a name in UTF-8"),
        (["--resume", "a\udcff"], "'a\\udcff' is not UTF-8 text"),
        (["training.search_path=[[a]]"], "training.search_path=[['a']] must be a list of directories"),
    ],
)
def test_odd_places_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request_: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locked" / "lock").mkdir(parents=True)
    assert main(request_ if request_[0] == "fit" else ["fit", *request_]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_another_kernel_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Killed):
        main(arguments(6, 6, interrupt(13, "step"), run=str(tmp_path / "run")))
    capsys.readouterr()
    assert resume(str(tmp_path / "run"), "model.backend=chunked") == 0
    said = capsys.readouterr().out
    sessions = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    if sessions[0]["environment"]["gated_delta_rule"] == "native":
        assert "not bit-exact from here on: gated_delta_rule native -> chunked" in said
    else:
        assert "not bit-exact" not in said


def test_fresh_names_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sleep_lightning.config import load_experiment

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    experiment = load_experiment(None, ["task.name=rule110"])
    made = [RunDirectory.create(experiment) for _ in range(3)]
    assert [run.path.name for run, _ in made] == ["rule110-now", "rule110-now-2", "rule110-now-3"]
