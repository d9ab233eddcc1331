"""Runs as jobs of a real SLURM."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers import SlurmLauncher, SlurmOptions
from tests.cluster.services import Slurm, wait_until
from tests.sweep import stand_in
from tests.sweep.sweeps import small_sweep

QUICK = SlurmOptions(poll_seconds=0.1, settle_seconds=0.3)


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("command", "begin_command", "resume_command"):
        monkeypatch.setattr(FitProcess, name, getattr(FitProcess, name))  # put back afterwards
    stand_in.stand_for_fit()


def some_run(tmp_path: Path) -> FitProcess:
    return FitProcess(small_sweep().base, RunDirectory(tmp_path / "a 100% $HOME `odd` 'place'" / "0000-seed0"))


def finish(launcher: SlurmLauncher, run: FitProcess) -> str:
    ended: list[str | None] = []
    wait_until(lambda: (ended.append(launcher.poll(run)) or ended[-1]) is not None, "the job's end")  # type: ignore[func-returns-value]
    return str(ended[-1])


def steps(run: FitProcess) -> list[int]:
    file = run.directory.path / "steps"
    return list(map(int, file.read_text().split())) if file.exists() else []


def job_of(run: FitProcess) -> str:
    return str(json.loads(run.directory.path.with_suffix(".slurm.json").read_text())["job"])


def test_a_run_is_a_job_wherever_it_lies(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # we are in a job ourselves
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    run, launcher = some_run(tmp_path), SlurmLauncher(QUICK, threads=1)
    launcher.submit(run)
    assert finish(launcher, run) == "done"
    assert run.summary is not None and steps(run) == [1, 2, 3, 4, 5, 6]
    assert not launcher.events


def test_another_supervisor_adopts_the_job(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.2")
    run = some_run(tmp_path)
    SlurmLauncher(QUICK, threads=1).submit(run)
    job = job_of(run)
    ticket = run.directory.path.with_suffix(".slurm.json")
    for number in (job, None):  # None: the first one was killed before it could write the answer down
        ticket.write_text(json.dumps(json.loads(ticket.read_text()) | {"job": number}))
        other = SlurmLauncher(QUICK, threads=1)
        other.submit(run)
        assert job_of(run) == job
    finish(other, run)
    assert steps(run) == [1, 2, 3, 4, 5, 6]


def test_a_job_nobody_waits_for_does_nothing(slurm: Slurm, tmp_path: Path) -> None:
    run, launcher = some_run(tmp_path), SlurmLauncher(QUICK, threads=1)
    launcher.submit(run)
    finish(launcher, run)
    run.directory.path.with_suffix(".slurm.json").write_text('{"token": "another", "job": null}')
    script = run.directory.path.with_suffix(".sbatch")
    subprocess.run(["bash", str(script)], check=True, timeout=30)
    assert not (run.directory.path / "again").exists()


def test_a_requeued_job_goes_on_and_is_the_same(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.3")
    run, launcher = some_run(tmp_path), SlurmLauncher(QUICK, threads=1)
    launcher.submit(run)
    job = job_of(run)
    wait_until(lambda: len(steps(run)) > 2, "a checkpoint")
    slurm.ask("scontrol", "requeue", job)
    assert finish(launcher, run) == "done"
    assert job_of(run) == job and steps(run).count(3) <= 2 and steps(run).count(1) == 1


def test_a_cancelled_job_has_ended_and_says_so(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "60")
    run, launcher = some_run(tmp_path), SlurmLauncher(QUICK, threads=1)
    launcher.submit(run)
    wait_until(lambda: run.directory.holder() is not None, "the run")
    slurm.ask("scancel", job_of(run))
    assert finish(launcher, run).startswith(f"SLURM job {job_of(run)} is cancelled: ")
    launcher.submit(run)  # another job
    wait_until(lambda: run.directory.holder() is not None, "the run again")
    launcher.stop([run])
    assert run.directory.holder() is None and "failed" in str(launcher.poll(run))


def test_stopping_takes_a_waiting_job_back(slurm: Slurm, tmp_path: Path) -> None:
    run, launcher = some_run(tmp_path), SlurmLauncher(SlurmOptions(poll_seconds=0.1, extra=["--begin=now+1hour"]), 1)
    launcher.submit(run)
    assert launcher.poll(run) is None
    launcher.stop([run])
    assert "cancelled" in str(launcher.poll(run)) and not steps(run)


@pytest.mark.slow
def test_while_slurm_does_not_answer_jobs_are_as_they_were(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    first, second = some_run(tmp_path / "1"), some_run(tmp_path / "2")
    launcher = SlurmLauncher(QUICK, threads=1)
    launcher.submit(first)
    slurm.controller.terminate()
    slurm.controller.wait()
    monkeypatch.setenv("SLURM_CONF", str(impatient(slurm, tmp_path)))
    try:
        launcher.submit(second)
        assert launcher.poll(first) is None and launcher.poll(second) is None
        assert len(launcher.events) == 1 and "SLURM does not accept its job" in launcher.events[0]
    finally:
        slurm.start_controller()
    assert finish(launcher, first) == finish(launcher, second) == "done"


def impatient(slurm: Slurm, tmp_path: Path) -> Path:
    conf = tmp_path / "slurm.conf"
    conf.write_text((slurm.folder / "slurm.conf").read_text() + "MessageTimeout=2\nSlurmctldTimeout=5\n")
    return conf


def test_a_run_that_somebody_trains_already_waits(slurm: Slurm, tmp_path: Path) -> None:
    run, launcher = some_run(tmp_path), SlurmLauncher(QUICK, threads=1)
    run.directory.path.mkdir(parents=True)
    with run.directory.lock():
        launcher.submit(run)
        time.sleep(0.2)
        assert launcher.poll(run) is None
        assert "trains it already" in launcher.events[0]
    assert finish(launcher, run) == "done"


def test_a_partition_that_is_not_there_is_said_at_once(slurm: Slurm) -> None:
    with pytest.raises(ValueError, match=r"slurm: a job with these options is rejected \(.*Invalid partition.*\)"):
        SlurmLauncher(SlurmOptions(partition="moon"), threads=1)
