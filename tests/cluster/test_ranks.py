"""Ranks that a real SLURM starts, on one node and on two: ``fit`` under ``srun``, and trials of several tasks."""

import shlex
import time
from pathlib import Path

import pytest

from sleep_lightning.config import load_experiment
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers import SlurmLauncher, SlurmOptions
from sleep_lightning.training.distributed.srun import SrunStep
from tests.cli.cli import ROOT, command, environment
from tests.cluster.services import Slurm, wait_until
from tests.cluster.small_run import KEYS, STEPS, assert_same_training, fit_words


def fit_line(run: Path, *more: str) -> str:
    return shlex.join(command(*fit_words(run, *more)))


def submit(slurm: Slurm, folder: Path, lines: list[str], *options: str) -> str:
    """A job of these lines of bash; its output goes to ``out``."""
    script, told = folder / "job.sh", {k: v for k, v in environment().items() if k in ("PYTHONPATH", "OMP_NUM_THREADS")}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in told.items()]
    script.write_text("\n".join(["#!/bin/bash", *exports, "export MASTER_ADDR=127.0.0.1", *lines, ""]))
    own = [f"--output={folder}/out", "--open-mode=append", "--requeue"]  # n1 and n2 are names of SLURM's only
    return slurm.ask("sbatch", "--parsable", *own, *options, str(script)).strip()


def wait_for(slurm: Slurm, job: str, folder: Path, state: str = "COMPLETED") -> str:
    """Returns what the job has said."""
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    now: list[str] = []

    def over() -> bool:
        now.append(slurm.ask("scontrol", "show", "job", "-o", job))
        return any(f"JobState={name}" in now[-1] for name in ended)

    wait_until(over, "the job's end", seconds=400)
    said = (folder / "out").read_text()
    assert f"JobState={state}" in now[-1], said
    return said


def test_slurm_tells_the_first_host(slurm: Slurm) -> None:
    assert SrunStep(0, 0, (1, 1), "n[1-2]", {}).address() == "n1"


@pytest.mark.slow
def test_two_nodes_train_as_one_and_a_requeued_job_goes_on(slurm: Slurm, tmp_path: Path, alone: Path) -> None:
    """One task on each; SIGUSR1 in the middle, upon which the run itself puts its job back into the queue."""
    run = tmp_path / "run"
    line = fit_line(run, "training.num_nodes=2", "training.requeue=true")
    job = submit(slurm, tmp_path, [f"exec srun --kill-on-bad-exit=1 {line}"], "--nodes=2", "--ntasks-per-node=1")
    wait_until(lambda: RunDirectory(run).last.exists(), "a checkpoint", seconds=300)
    slurm.ask("scancel", "--signal=USR1", job)
    said = wait_for(slurm, job, tmp_path)
    assert f"SLURM job {job} is in the queue again" in said, said
    assert_same_training(run, alone)


@pytest.mark.slow
def test_what_srun_starts_is_what_trains(slurm: Slurm, tmp_path: Path) -> None:
    """Two tasks where one is wanted are refused; one task with two devices is two ranks; the job's script is one."""
    short = "training.max_steps=4"
    lines = [
        f"srun --ntasks=2 {fit_line(tmp_path / 'refused', short)}; echo exit $?",
        f"srun --ntasks=1 {fit_line(tmp_path / 'two', short, 'training.devices=2')}; echo exit $?",
        f"{fit_line(tmp_path / 'one', short)}; echo exit $?",
    ]
    said = wait_for(slurm, submit(slurm, tmp_path, lines, "--nodes=1", "--ntasks=2"), tmp_path)
    assert [line for line in said.splitlines() if line.startswith("exit ")] == ["exit 2", "exit 0", "exit 0"], said
    assert said.count("but srun started 2 tasks on 1 node (2); use training.devices=2 training.num_nodes=1") == 2
    assert not (tmp_path / "refused").exists()
    ranks = [RunDirectory(tmp_path / name).summary.read_text() for name in ("two", "one")]
    assert '"2 (2 a node)"' in ranks[0] and '"1 (1 a node)"' in ranks[1]


@pytest.mark.slow
def test_a_trial_of_two_tasks_on_two_nodes(
    slurm: Slurm, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the supervisor trains it: stopped with a checkpoint, submitted again, done."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    path = tmp_path / "0000-seed0"
    e = load_experiment(ROOT / "conf" / "rule110.yaml", [*KEYS, "training.num_nodes=2", f"training.run_dir={path}"])
    run = FitProcess(e, RunDirectory(path))
    options = SlurmOptions(nodes=2, tasks=2, setup=["export MASTER_ADDR=127.0.0.1"], poll_seconds=0.2)
    launcher = SlurmLauncher(options, threads=1)
    launcher.submit(run)
    wait_until(run.directory.last.exists, "a checkpoint", seconds=300)
    launcher.stop([run])
    assert run.summary is None, "it was over before it could be stopped"
    reached = load_checkpoint(run.directory.last)["global_step"]
    assert "SIGTERM: saving after this step" in run.log.read_text()
    launcher.submit(run)
    deadline = time.monotonic() + 300
    while launcher.poll(run) is None:
        assert time.monotonic() < deadline, run.log.read_text()
        time.sleep(0.2)
    assert run.summary is not None, run.log.read_text()
    assert reached < run.summary["steps"] == STEPS
    assert run.summary["environment"]["ranks"] == "2 (1 a node)"
    assert_same_training(path, alone)
