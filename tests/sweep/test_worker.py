"""Runs that workers take from a queue."""

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep import worker as worker_module
from sleep_lightning.sweep.folder import save_sweep
from sleep_lightning.sweep.launchers import WorkersLauncher
from sleep_lightning.sweep.launchers.queue import Queue
from sleep_lightning.sweep.ledger import Ledger
from sleep_lightning.sweep.study import finished, open_study
from sleep_lightning.sweep.supervisor import Supervisor
from sleep_lightning.sweep.worker import Worker
from tests.cli.cli import environment
from tests.sweep import stand_in
from tests.sweep.sweeps import small_sweep


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("command", "begin_command", "resume_command"):
        monkeypatch.setattr(FitProcess, name, getattr(FitProcess, name))  # put back afterwards
    stand_in.stand_for_fit()
    monkeypatch.setattr(worker_module, "RENEW_SECONDS", 0.05)
    monkeypatch.setenv("STAND_IN_SECONDS", "0.1")
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Scene:
    """A run, its launcher, and workers that move when they are told to."""

    def __init__(self, folder: Path, lease: float = 0.5) -> None:
        self.folder = folder
        self.run = FitProcess(small_sweep().base, RunDirectory(folder / "trials" / "0000-seed0"))
        self.launcher = WorkersLauncher(folder, threads=1, lease_seconds=lease)
        self.workers: list[Iterator[str]] = []

    def hire(self) -> Iterator[str]:
        self.workers.append(Worker(self.folder).work(idle_seconds=60, look_seconds=0.01))
        return self.workers[-1]

    def steps(self) -> list[int]:
        file = self.run.directory.path / "steps"
        return list(map(int, file.read_text().split())) if file.exists() else []

    def until(self, step: int) -> None:
        wait_until(lambda: step in self.steps())


def wait_until(there: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    if (left := made.run.orphan()) is not None:
        left.kill()


def test_a_worker_trains_what_waits_and_goes_when_the_sweep_is_done(scene: Scene) -> None:
    scene.launcher.submit(scene.run)
    worker = scene.hire()
    assert next(worker) == "0000-seed0: begun"
    assert scene.launcher.poll(scene.run) is None
    assert next(worker) == "0000-seed0: done"
    assert scene.launcher.poll(scene.run) == "done" and scene.steps() == [1, 2, 3, 4, 5, 6]
    scene.launcher.close()
    assert list(worker) == ["the sweep is done"]


def test_of_two_workers_one_gets_it(scene: Scene) -> None:
    scene.launcher.submit(scene.run)
    queue = Queue(scene.folder)
    assert queue.claim("a", lambda run: False) is None
    assert queue.claim("a", lambda run: True) is not None
    assert queue.claim("b", lambda run: True) is None


def test_how_a_run_failed_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FitProcess, "command", lambda self: [sys.executable, "-S", "-c", "raise SystemExit('oh')"])
    scene.launcher.submit(scene.run)
    worker = scene.hire()
    assert [next(worker), next(worker)] == ["0000-seed0: begun", "0000-seed0: exit code 1: oh"]
    assert scene.launcher.poll(scene.run) == "exit code 1: oh"
    scene.launcher.submit(scene.run)
    assert scene.launcher.poll(scene.run) is None


def test_a_worker_that_is_sent_away_saves_for_another(scene: Scene) -> None:
    scene.launcher.submit(scene.run)
    worker = scene.hire()
    next(worker)
    scene.until(2)
    worker.close()  # type: ignore[attr-defined]
    assert scene.run.directory.holder() is None and scene.launcher.poll(scene.run) is None
    other = scene.hire()
    assert [next(other), next(other)] == ["0000-seed0: begun", "0000-seed0: done"]
    assert scene.launcher.poll(scene.run) == "done" and scene.steps().count(1) == 1


def test_a_lost_machine_s_run_goes_on_with_another_worker(scene: Scene) -> None:
    scene.launcher.submit(scene.run)
    next(scene.hire())  # and never moves again
    scene.until(3)
    process = scene.run.orphan()
    assert process is not None
    process.kill()
    wait_until(lambda: scene.launcher.poll(scene.run) is None and scene.launcher.events)
    assert "is lost; it waits for another" in scene.launcher.events[0]
    other = scene.hire()
    assert [next(other), next(other)] == ["0000-seed0: begun", "0000-seed0: done"]
    assert scene.steps().count(1) == 1 and scene.steps()[-1] == 6


def test_a_run_that_outlives_its_worker_is_no_one_else_s(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    scene.launcher.submit(scene.run)
    next(scene.hire())
    scene.until(1)
    wait_until(lambda: scene.launcher.poll(scene.run) is None and scene.launcher.events)
    assert Queue(scene.folder).claim("b", lambda run: scene.run.directory.holder() is None) is None
    wait_until(lambda: scene.launcher.poll(scene.run) == "done")
    assert scene.steps() == [1, 2, 3, 4, 5, 6]


def test_a_worker_that_was_only_slow_gives_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    scene.launcher.submit(scene.run)
    slow = scene.hire()
    next(slow)
    scene.until(1)
    wait_until(lambda: scene.launcher.poll(scene.run) is None and scene.launcher.events)
    assert "given to another worker" in next(slow)
    assert next(slow) == "0000-seed0: killed by signal 15 (SIGTERM)"
    assert scene.run.directory.holder() is None and Queue(scene.folder).waits("0000-seed0")


def test_stopping(scene: Scene) -> None:
    scene.launcher.submit(scene.run)
    scene.launcher.stop([scene.run])
    assert scene.launcher.poll(scene.run) == "taken back before a worker had it"
    scene.launcher.submit(scene.run)
    worker = scene.hire()
    next(worker)
    scene.until(1)
    scene.launcher.signal(scene.run)
    assert next(worker) == "0000-seed0: killed by signal 15 (SIGTERM)"  # a stand-in does not save
    assert scene.launcher.poll(scene.run) == "killed by signal 15 (SIGTERM)"


def test_three_workers_one_killed_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.15")
    sweep = small_sweep(trials=6, workers=4, launcher="workers", retries=0)
    study = open_study(sweep, tmp_path)
    save_sweep(sweep, tmp_path)
    supervisor = Supervisor(sweep, study, tmp_path, launcher=WorkersLauncher(tmp_path, 1, lease_seconds=3))
    command = [sys.executable, "-m", "tests.sweep.stand_in", "work", str(tmp_path)]
    workers = [psutil.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(3)]
    killed: list[int] = []
    for _ in supervisor.run(poll_seconds=0.02):
        busy = [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE and w.children()]
        if not killed and busy and Ledger(study.get_trials()).counted >= 1:
            for process in [*busy[0].children(), busy[0]]:
                process.kill()
                killed.append(process.pid)
    assert len(killed) >= 2
    assert len(finished(study)) == len(study.get_trials()) == 6
    assert any("is lost; it waits for another" in event for event in supervisor.events)
    said = [worker.communicate(timeout=60)[0] for worker in workers]
    assert sum("the sweep is done" in text for text in said) == 2
    for directory in tmp_path.glob("trials/*-seed0"):
        assert not (directory / "again").exists()
        steps = list(map(int, (directory / "steps").read_text().split()))
        assert set(steps) == set(range(1, stand_in.STEPS + 1))
        assert all(b == a + 1 or (b - 1) % stand_in.EVERY == 0 for a, b in pairwise(steps))


def test_who_cannot_work_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = small_sweep()
    open_study(sweep, tmp_path)
    save_sweep(sweep, tmp_path)
    assert main(["sweep", "work", str(tmp_path)]) == 2
    assert "has launcher: local, which needs no workers; set launcher: workers" in capsys.readouterr().err
    sweep.spec.launcher = "workers"
    sweep.base.tracking.enabled, sweep.base.tracking.uri = True, "postgresql://me:s3cret@db/x"
    save_sweep(sweep, tmp_path)
    assert main(["sweep", "work", str(tmp_path)]) == 2
    assert "give the whole URI in SLEEP_LIGHTNING_TRACKING_URI" in capsys.readouterr().err
    sweep.base.tracking.enabled = False
    save_sweep(sweep, tmp_path)
    assert main(["sweep", "work", str(tmp_path), "--idle-minutes", "0"]) == 2
    Queue(tmp_path).close()
    assert main(["sweep", "work", str(tmp_path)]) == 0
    assert "the sweep is done" in capsys.readouterr().out
