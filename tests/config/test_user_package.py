"""A user's package outside of this one, trained by real child processes: fit, resume, compare, sweep."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.tasks import Rule110Config
from tests.cli.cli import environment, run
from tests.config.user import copy_package, project  # noqa: F401

pytestmark = pytest.mark.process


def steps(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "steps.txt").read_text().split()]


@pytest.mark.slow
def test_fit_and_resume_from_anywhere(tmp_path: Path) -> None:
    package, here, there = copy_package(tmp_path / "project"), tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    done = run(here, "fit", "--config", str(package / "reverse.yaml"), "training.run_dir=r")
    assert done.returncode == 0, done.stderr
    assert steps(here) == [1, 2, 3, 4]
    state = load_checkpoint(here / "r")["optimizer_states"][0]
    assert all("average" in of for of in state["state"].values()), "the user's optimizer is saved"
    done = run(there, "fit", "--resume", str(here / "r"), "training.max_steps=6")
    assert done.returncode == 0, done.stderr
    assert steps(there) == [5, 6]
    done = run(there, "test", "--checkpoint", str(here / "r"))
    assert done.returncode == 0, done.stderr
    package.rename(tmp_path / "moved")
    done = run(there, "fit", "--resume", str(here / "r"), "training.max_steps=8")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    missing = "task.class_path='lab.tasks.Reverse': there is no module 'lab' on sys.path or in"
    assert f"error: {here}/r/config.yaml: {missing} {there}" in done.stderr
    moved = f"training.search_path=[{tmp_path}/moved]"
    done = run(there, "fit", "--resume", str(here / "r"), moved, "training.max_steps=8")
    assert done.returncode == 0, done.stderr
    assert steps(there) == [5, 6, 7, 8]


@pytest.mark.slow
def test_a_resumed_run_is_an_uninterrupted_one(tmp_path: Path) -> None:
    """A model and an optimizer of the user's own, to the bit."""
    package = copy_package(tmp_path / "project")
    flat = ["training.warmup=0", "training.cooldown=0"]  # shares of max_steps, which differs
    for name, steps_first in (("whole", 4), ("cut", 2)):
        request = ["--config", "linear.yaml", f"training.run_dir={name}", f"training.max_steps={steps_first}", *flat]
        assert run(package, "fit", *request).returncode == 0
    done = run(package, "fit", "--resume", "cut", "training.max_steps=4")
    assert done.returncode == 0, done.stderr
    whole, cut = (load_checkpoint(package / name / "checkpoints" / "last.ckpt") for name in ("whole", "cut"))
    assert whole["state_dict"].keys() == cut["state_dict"].keys()
    assert all(torch.equal(x, cut["state_dict"][name]) for name, x in whole["state_dict"].items())


@pytest.mark.slow
def test_compare_and_sweep(tmp_path: Path) -> None:
    package, here = copy_package(tmp_path / "project"), tmp_path / "here"
    here.mkdir()
    arms = ["n1", "n2", "fast:training.optimizer.init_args.lr=0.01"]
    request = ["compare", str(package / "reverse.yaml"), "--arms", *arms, "--seeds", "0", "--output", "c"]
    done = run(here, *request)
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(steps(here)) == 12
    assert run(here, *request).returncode == 0, "finished runs are recognised"
    assert len(steps(here)) == 12
    done = run(here, "sweep", str(package / "sweep.yaml"), "--output", "s")
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(steps(here)) == 20
    assert "lr=" in done.stdout and "bound=" in done.stdout
    there = tmp_path / "there"
    there.mkdir()
    shown = run(there, "sweep", "show", str(here / "s"))
    assert shown.returncode == 0 and "2 complete" in shown.stdout, shown.stderr
    assert json.loads((here / "s" / "frontier.json").read_text())


@pytest.mark.slow
def test_two_ranks_import_it_too(tmp_path: Path) -> None:
    package, here = copy_package(tmp_path / "project"), tmp_path / "here"
    here.mkdir()
    config = ["--config", str(package / "linear.yaml"), "training.run_dir=r", "training.devices=2"]
    done = run(here, "fit", *config, "training.accelerator=cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads((here / "r" / "summary.json").read_text())["status"] == "FINISHED"


def test_the_current_directory_is_searched_without_python_adding_it(tmp_path: Path) -> None:
    """As by the console script, which has its own directory on sys.path in place of the current one."""
    package = copy_package(tmp_path / "project")
    (package / "conf").mkdir()
    (package / "reverse.yaml").rename(package / "conf" / "reverse.yaml")
    call = "import sys; from sleep_lightning.__main__ import main; sys.path.remove(''); sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", call, "config", "--config", "conf/reverse.yaml"]
    done = subprocess.run(command, cwd=package, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"- {package}" in done.stdout


def test_classes_of_a_notebook_are_refused_for_child_processes(tmp_path: Path, project: Path) -> None:  # noqa: F811
    class NotebookTask(Rule110Config):
        pass

    NotebookTask.__module__, NotebookTask.__qualname__ = "__main__", "NotebookTask"
    with pytest.raises(ValueError, match=r"^task\.class_path='__main__\.NotebookTask' cannot be imported by a child"):
        FitProcess(Experiment(NotebookTask()), RunDirectory(tmp_path / "r"))
    with pytest.raises(
        ValueError, match=r"'__main__\.NotebookTask' is defined in a notebook or script, which no other"
    ):
        load_experiment(Experiment(NotebookTask()).to_dict())
