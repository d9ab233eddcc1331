"""A user's package outside of this one, trained by real child processes: fit, resume, compare, sweep."""

import json
from pathlib import Path

from sleep_lightning.config import load_experiment
from sleep_lightning.runs.directory import RunDirectory, load_checkpoint
from sleep_lightning.runs.process import FitProcess
from tests.cli.cli import run
from tests.config.user import copy_package, project  # noqa: F401


def steps(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "steps.txt").read_text().split()]


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
    assert f"error: task.class_path='lab.tasks.Reverse': there is no module 'lab' on sys.path or in {there}" in done.stderr
    done = run(there, "fit", "--resume", str(here / "r"), f"training.search_path=[{tmp_path}/moved]", "training.max_steps=8")
    assert done.returncode == 0, done.stderr
    assert steps(there) == [5, 6, 7, 8]


def test_a_resumed_run_is_an_uninterrupted_one(tmp_path: Path) -> None:
    """A model and an optimizer of the user's own, to the bit."""
    package = copy_package(tmp_path / "project")
    whole, cut = (["fit", "--config", "linear.yaml", f"training.run_dir={name}"] for name in ("whole", "cut"))
    assert run(package, *whole, "training.checkpoint_every=2").returncode == 0
    assert run(package, *cut, "training.max_steps=2", "training.checkpoint_every=2").returncode == 0
    done = run(package, "fit", "--resume", "cut", "training.max_steps=4")
    assert done.returncode == 0, done.stderr
    weights = [load_checkpoint(package / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("whole", "cut")]
    assert weights[0].keys() == weights[1].keys()
    # warm-up and cool-down are shares of max_steps: alike only without them


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
    exported = json.loads((here / "s" / "frontier.json").read_text())
    assert exported


def test_two_ranks_import_it_too(tmp_path: Path) -> None:
    package, here = copy_package(tmp_path / "project"), tmp_path / "here"
    here.mkdir()
    config = ["--config", str(package / "linear.yaml"), "training.run_dir=r", "training.devices=2"]
    done = run(here, "fit", *config, "training.accelerator=cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads((here / "r" / "summary.json").read_text())["status"] == "FINISHED"


def test_classes_of_a_notebook_are_refused_for_child_processes(tmp_path: Path, project: Path) -> None:  # noqa: F811
    import __main__

    import sleep_lightning.tasks

    e = load_experiment(project / "linear.yaml")

    class NotebookTask(sleep_lightning.tasks.Rule110Config):
        pass

    NotebookTask.__module__, NotebookTask.__qualname__ = "__main__", "NotebookTask"
    e = type(e)(NotebookTask(), sleep=load_experiment(None, []).sleep)
    try:
        FitProcess(e, RunDirectory(tmp_path / "r"))
    except ValueError as error:
        assert str(error).startswith("task.class_path='__main__.NotebookTask' cannot be imported by a child process; ")
    else:
        raise AssertionError("it was accepted")
    assert not hasattr(__main__, "NotebookTask")
