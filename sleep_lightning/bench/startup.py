"""Breakdown of the time from the start of ``fit``'s process to the end of its first step."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil

from sleep_lightning.bench.first_line import bench_first_lines

ROUNDS = 3
FIRST_STEP = "fit, to the end of the first step"
WHOLE = "fit, to the end of the process"
Times = tuple[float, float]
"""Wall and CPU seconds."""
OVERRIDES = ["task.ring_size=12", "sleep.window_size=12", "training.max_steps=1", "training.accelerator=cpu"]


def bench_startup(seconds: float) -> Iterator[dict[str, object]]:
    """Rows of seconds, medians over processes: the parts of a start, one after the other, a real ``fit``, and the first
    line of every command.

    CPU time is reported beside wall time because a busy machine lengthens it less.
    """
    from sleep_lightning.config import load_experiment

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        _parts(folder, uri)  # creates the database, as a sweep does before its first trial, and warms the disk cache
        fit = [sys.executable, "-m", "sleep_lightning", "fit", *OVERRIDES, f"tracking.uri={uri}"]
        rounds: list[dict[str, Times]] = []
        end = time.perf_counter() + seconds
        while len(rounds) < ROUNDS or time.perf_counter() < end:
            parts = _parts(folder, uri)
            rounds.append(parts | _fit(fit, Path(folder, str(len(rounds)))))
        for name in rounds[0]:
            wall, cpu = (median(parts[name][i] for parts in rounds) for i in (0, 1))
            yield {
                "what": "start of a fit of one step",
                "shape": "laptop model, MLflow on SQLite",
                "contender": name,
                "seconds": wall,
                "cpu_seconds": cpu,
                "rounds": len(rounds),
            }
    yield from bench_first_lines(load_experiment(None, OVERRIDES).to_yaml(), rounds=ROUNDS)


def _parts(folder: str, uri: str) -> dict[str, Times]:
    """Wall and CPU seconds of each part, in a process of its own."""
    began = time.time()
    started, before = time.perf_counter(), _cpu_of_children()
    command = [sys.executable, "-m", __name__, folder, uri, str(began)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wall, cpu = time.perf_counter() - started, _cpu_of_children() - before
    parts: dict[str, Times] = json.loads(said.splitlines()[-1])
    known = [sum(times) for times in zip(*parts.values(), strict=True)]
    return parts | {"end of the process": (max(0.0, wall - known[0]), max(0.0, cpu - known[1]))}


def _fit(command: list[str], run: Path) -> dict[str, Times]:
    """Time a fit; its first step ends when it has saved a checkpoint (which is included)."""
    from sleep_lightning.runs.directory import RunDirectory

    checkpoint = RunDirectory(run).last
    before, started = _cpu_of_children(), time.perf_counter()
    command = [*command, f"training.run_dir={run}", "training.checkpoint_every=1"]
    first: Times | None = None
    with psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if first is None and checkpoint.exists():
                spent = process.cpu_times()
                first = time.perf_counter() - started, spent.user + spent.system
            time.sleep(0.01)
    if process.returncode != 0 or first is None:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {FIRST_STEP: first, WHOLE: (time.perf_counter() - started, _cpu_of_children() - before)}


def _cpu_of_children() -> float:
    """CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _start(folder: str, uri: str, started: float) -> dict[str, Times]:
    """Do what ``fit`` does up to its first step; the wall clock spans both processes."""
    marks = {"": (started, 0.0), "Python": _now()}
    import_module("torch")
    marks["import torch"] = _now()
    import_module("mlflow.tracking")
    import_module("mlflow.store.tracking.sqlalchemy_store")
    marks["import MLflow"] = _now()
    import_module("lightning.pytorch")
    marks["import Lightning"] = _now()
    from sleep_lightning.config import load_experiment
    from sleep_lightning.runs.directory import RunDirectory
    from sleep_lightning.tracking.mlflow_logger import MLflowRun
    from sleep_lightning.training.datamodule import TaskDataModule
    from sleep_lightning.training.module import SleepModule
    from sleep_lightning.training.trainer import build_trainer, quiet_lightning

    quiet_lightning()
    marks["import sleep_lightning"] = _now()
    logger = MLflowRun(uri, "startup")
    marks["MLflow: open a run"] = _now()
    experiment = load_experiment(None, OVERRIDES)
    module, data = SleepModule(experiment), TaskDataModule(experiment)
    run = RunDirectory(Path(tempfile.mkdtemp(dir=folder)))
    trainer = build_trainer(experiment, run, [logger])
    marks["experiment, model, trainer"] = _now()
    trainer.fit(module, datamodule=data)
    marks["first step"] = _now()
    logger.end("FINISHED")
    marks["MLflow: end the run"] = _now()
    return {
        name: (marks[name][0] - marks[before][0], marks[name][1] - marks[before][1]) for before, name in pairwise(marks)
    }


def _now() -> tuple[float, float]:
    """Wall time, which two processes share, and CPU time of this one."""
    return time.time(), time.process_time()


if __name__ == "__main__":
    print(json.dumps(_start(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
