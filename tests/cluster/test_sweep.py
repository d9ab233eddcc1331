"""A sweep as SLURM jobs, its trials in PostgreSQL, while all of it is disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sleep_lightning.__main__ import main
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.sweep.study import finished, open_study, read_study
from tests.cli.cli import environment
from tests.cli.test_sweep import spec
from tests.cluster.services import Postgres, Slurm, wait_until
from tests.sweep import stand_in
from tests.sweep.sweeps import small_sweep

TRIALS, WORKERS, TIMES = 12, 4, 10


def options(postgres: Postgres, name: str) -> dict[str, object]:
    slurm = {"poll_seconds": 0.2, "settle_seconds": 0.5}
    return {"launcher": "slurm", "slurm": slurm, "storage": postgres.url, "retries": 3, "name": name}


_started: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _nothing_left(slurm: Slurm) -> Iterator[None]:
    yield
    for process in _started:
        process.kill()
        process.wait()
    slurm.ask("scancel", "--user=root")


def supervise(folder: Path, trials: int, postgres: Postgres, name: str) -> subprocess.Popen[bytes]:
    words = ["supervise", str(folder), str(trials), str(WORKERS), json.dumps(options(postgres, name))]
    folder.mkdir(exist_ok=True)
    with (folder / "supervisor.log").open("ab") as log:
        command = [sys.executable, "-m", "tests.sweep.stand_in", *words]
        _started.append(subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT))
    return _started[-1]


def jobs(slurm: Slurm) -> list[str]:
    return slurm.ask("squeue", "-h", "-o", "%i", "--states=PENDING,RUNNING").split()


def running(folder: Path) -> list[int]:
    """Processes of the runs at work; a lock file alone may name one that is long gone."""
    holders = [RunDirectory(file.parent).holder() for file in folder.glob("trials/*/lock")]
    return [holder.pid for holder in holders if holder is not None]


def check_whole(folder: Path, trials: int) -> None:
    """All trials ended once, each from its first step to its last, from checkpoint to checkpoint."""
    study = read_study(folder)
    states = Counter(trial.state for trial in study.get_trials())
    assert states == {TrialState.COMPLETE: trials}, (folder / "supervisor.log").read_text()
    for trial in finished(study):
        directory = folder / "trials" / f"{trial.number:04d}-seed0"
        assert not (directory / "again").exists(), "started though it was finished"
        steps = list(map(int, (directory / "steps").read_text().split()))
        assert set(steps) == set(range(1, stand_in.STEPS + 1))
        assert all(b == a + 1 or (b - 1) % stand_in.EVERY == 0 for a, b in pairwise(steps))


@pytest.mark.slow
def test_twelve_trials_under_scancel_requeue_and_kill_9(
    slurm: Slurm, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs cancelled and put back, runs and the supervisor killed, the database gone for a while, at random moments."""
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    folder, dice, done = tmp_path / "sweep", random.Random(0), Counter[str]()
    process = supervise(folder, TRIALS, postgres, "twelve")
    deadline = time.monotonic() + 900
    while process.poll() != 0:
        assert time.monotonic() < deadline, (folder / "supervisor.log").read_text()
        if process.poll() is not None:  # killed; or begun while there was no database, which it says at once
            said = (folder / "supervisor.log").read_text()
            assert process.returncode == -signal.SIGKILL or "cannot be used: connection" in said.splitlines()[-1], said
            process = supervise(folder, TRIALS, postgres, "twelve")
        time.sleep(dice.uniform(0.2, 2))
        there = jobs(slurm)
        if not there or done.total() >= TIMES:
            continue
        what = ["scancel", "requeue", "stop PostgreSQL", "kill a run", "kill the supervisor"][done.total() % 5]
        if what == "scancel":
            slurm.ask("scancel", dice.choice(there))
        elif what == "requeue":
            slurm.ask("scontrol", "requeue", dice.choice(there))
        elif what == "kill a run":
            if not (alive := running(folder)):
                continue
            try:
                os.kill(dice.choice(alive), signal.SIGKILL)
            except ProcessLookupError:  # it has just ended
                continue
        elif what == "kill the supervisor":
            process.kill()
            process.wait()
        else:
            postgres.stop()
            time.sleep(5)  # longer than a trial
            postgres.go_on()
        done[what] += 1
    assert done.total() == TIMES, f"the sweep was over after {dict(done)}"
    check_whole(folder, TRIALS)
    assert "cannot be used for" in (folder / "supervisor.log").read_text()
    wait_until(lambda: not jobs(slurm), "an empty queue")


@pytest.mark.slow
def test_sigterm_takes_the_jobs_back_and_the_sweep_goes_on(
    slurm: Slurm, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "1")
    folder = tmp_path / "sweep"
    process = supervise(folder, 2, postgres, "two")
    wait_until(lambda: len(running(folder)) == 2, "two runs")
    process.terminate()
    process.wait(150)
    assert not jobs(slurm)
    assert supervise(folder, 2, postgres, "two").wait(300) == 0
    check_whole(folder, 2)


def test_a_password_that_is_wrong_is_said_and_not_shown(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "wr0ng")
    with pytest.raises(ValueError, match=r"cannot be used: .*password authentication failed.*PGPASSWORD") as caught:
        open_study(small_sweep(storage=postgres.url), tmp_path)
    assert "wr0ng" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_real_runs_with_mlflow_on_postgresql(
    slurm: Slurm,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the spec to the report: ``fit`` as SLURM jobs, trials and MLflow's runs in one PostgreSQL."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    uri = postgres.url.replace("tester@", f"tester:{postgres.PASSWORD}@").replace("/postgres", "/mlflow")
    subprocess.run(
        ["createdb", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "tester", "mlflow"], check=True, timeout=30
    )
    file = Path(spec(tmp_path, f"launcher: slurm\nslurm: {{poll_seconds: 0.5}}\nstorage: {postgres.url}\n"))
    file.write_text(file.read_text().replace("overrides: [", f'overrides: ["tracking.uri={uri}", '))
    assert main(["sweep", str(file)]) == 0
    said = capsys.readouterr().out
    assert "2 complete" in said
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    [experiment] = [e for e in client.search_experiments() if e.name == "sleep_lightning"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 4  # the sweep, its frontier, two trials
    folder = tmp_path / "runs" / "sweeps" / "tiny"
    for path in folder.rglob("*"):
        if path.is_file() and os.access(path, os.R_OK):
            assert postgres.PASSWORD.encode() not in path.read_bytes(), f"{path}: the password is in it"
