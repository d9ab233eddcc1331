"""What is asked of SLURM, without one."""

import subprocess
from pathlib import Path

import pytest

from sleep_lightning.sweep.launchers import SlurmLauncher, SlurmOptions

ODD = "a b; $(touch broken) `touch broken` 'c' \"d\" 100%"


def ran(tmp_path: Path, options: SlurmOptions, begun: bool = False, token: str = "t1") -> str:
    """What the script of a job prints whose commands print their words."""
    config, ticket = tmp_path / ODD / "config.yaml", tmp_path / ODD / "ticket"
    config.parent.mkdir(exist_ok=True)
    ticket.write_text(token)
    if begun:
        config.touch()
    begin, resume = ["printf", "%s\n", "begin", ODD], ["printf", "%s\n", "resume", ODD]
    script = tmp_path / "job.sh"
    script.write_text(options.script(begin, resume, config, ticket, "t1"))
    done = subprocess.run(["bash", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "broken").exists()
    return done.stdout


@pytest.mark.process
def test_words_stay_words(tmp_path: Path) -> None:
    assert ran(tmp_path, SlurmOptions()) == f"begin\n{ODD}\n"
    assert ran(tmp_path, SlurmOptions(), begun=True) == f"resume\n{ODD}\n"


@pytest.mark.process
def test_a_job_that_is_not_wanted_does_nothing(tmp_path: Path) -> None:
    assert ran(tmp_path, SlurmOptions(setup=["echo never"]), token="another") == ""


@pytest.mark.process
def test_setup_comes_first_and_slurm_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    setup = ["echo $SLURM_NTASKS", "trap 'echo left: ${SLURM_NTASKS-none}' DEBUG"]
    assert ran(tmp_path, SlurmOptions(setup=setup)).splitlines()[0] == "1"
    assert "left: none" in ran(tmp_path, SlurmOptions(setup=setup))


@pytest.mark.process
def test_several_processes_are_started_by_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "srun $1 -c$SRUN_CPUS_PER_TASK"; shift; exec "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert ran(tmp_path, SlurmOptions(tasks=2)) == f"srun --kill-on-bad-exit=1 -c6\nbegin\n{ODD}\n"


def test_what_a_job_asks_for() -> None:
    assert SlurmOptions().arguments(threads=3) == ["--nodes=1", "--ntasks=1", "--cpus-per-task=3"]
    wide = SlurmOptions(partition="gpu", time_limit=60, nodes=2, tasks=8, gpus_per_node=4, cpus=6, extra=["--mem=8G"])
    assert wide.arguments(threads=3) == [
        *(
            "--nodes=2",
            "--ntasks=8",
            "--cpus-per-task=6",
            "--ntasks-per-node=4",
            "--gpus-per-node=4",
            "--partition=gpu",
        ),
        *("--time=60", "--signal=TERM@120", "--mem=8G"),
    ]
    assert "--signal=B:TERM@15" in SlurmOptions(time_limit=1).arguments(1)


def test_without_slurm_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"launcher=slurm needs sbatch, which is not on the PATH here; .* local"):
        SlurmLauncher(SlurmOptions(), threads=1)
