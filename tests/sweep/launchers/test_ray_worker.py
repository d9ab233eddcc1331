"""What a Ray worker does with a run, without Ray."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.sweep.launchers.ray_options import RayOptions
from sleep_lightning.sweep.launchers.ray_worker import Order, RunWorker
from tests.sweep import stand_in

pytestmark = pytest.mark.process


def order(tmp_path: Path) -> Order:
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    fit = [sys.executable, "-S", stand_in.__file__, "fit", str(run), "2"]
    return Order(run, tmp_path / "log", tmp_path, fit, fit, {"STAND_IN_SECONDS": "0.3"})


def steps(run: Path) -> list[int]:
    file = run / "steps"
    return list(map(int, file.read_text().split())) if file.exists() else []


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_trained_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    wanted = order(tmp_path)
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda worker: worker.train(wanted), [RunWorker() for _ in range(3)])) == [0, 0, 0]
    assert RunWorker().train(wanted) == 0
    assert steps(wanted.run) == [1, 2, 3, 4, 5, 6] and not (wanted.run / "again").exists()


def test_a_process_that_lost_its_worker_is_waited_for_and_resumed_if_it_dies(tmp_path: Path) -> None:
    wanted, done = order(tmp_path), list[int | None]()
    first = threading.Thread(target=RunWorker().train, args=[wanted])
    first.start()
    wait_until(lambda: 3 in steps(wanted.run))
    holder = RunDirectory(wanted.run).holder()
    assert holder is not None
    second = threading.Thread(target=lambda: done.append(RunWorker().train(wanted)))
    second.start()
    time.sleep(0.3)
    os.kill(holder.pid, signal.SIGKILL)
    first.join(30)
    second.join(30)
    assert done == [0] and steps(wanted.run).count(1) == 1 and steps(wanted.run)[-1] == 6


@pytest.mark.parametrize("adopted", [False, True])
def test_stop_reaches_the_process(adopted: bool, tmp_path: Path) -> None:
    wanted, worker, codes = order(tmp_path), RunWorker(), list[int | None]()
    if adopted:
        process = psutil.Popen(wanted.begin, env=os.environ | wanted.environment, start_new_session=True)
        threading.Thread(target=process.wait).start()
        wait_until(lambda: bool(steps(wanted.run)))
    thread = threading.Thread(target=lambda: codes.append(worker.train(wanted)))
    thread.start()
    wait_until(lambda: 1 in steps(wanted.run) and worker._process is not None)
    worker.stop()
    thread.join(30)
    assert codes == [None if adopted else -signal.SIGTERM] and 6 not in steps(wanted.run)


def test_a_worker_that_was_stopped_starts_nothing(tmp_path: Path) -> None:
    worker = RunWorker()
    worker.stop()
    assert worker.train(order(tmp_path)) is None and not steps(tmp_path / "run")


def test_what_a_run_takes_of_a_node() -> None:
    assert RayOptions().demands(threads=3, devices=2) == {"CPU": 6, "GPU": 0}
    wide = RayOptions(num_cpus=4, num_gpus=2, resources={"big": 0.5})
    assert wide.demands(threads=1, devices=2) == {"CPU": 4, "GPU": 2, "big": 0.5}
