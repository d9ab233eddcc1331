"""Where the seconds go from the start of ``fit``'s process to the end of its first step."""

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

ROUNDS = 3
WHOLE = "fit, all in all"
OVERRIDES = ["task.ring_size=12", "sleep.window_size=12", "training.max_steps=1", "training.accelerator=cpu"]


def bench_startup(seconds: float) -> Iterator[dict[str, object]]:
    """Rows of seconds, medians over processes: the parts of a start one after the other, and a whole ``fit``.

    Beside the wall's time stands that of the CPU, which a busy machine lengthens less.
    """
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        _parts(folder, uri)  # makes the database, as a sweep does before its first trial; fills the disk's cache
        fit = [sys.executable, "-m", "sleep_lightning", "fit", *OVERRIDES, f"tracking.uri={uri}"]
        rounds: list[dict[str, tuple[float, float]]] = []
        end = time.perf_counter() + seconds
        while len(rounds) < ROUNDS or time.perf_counter() < end:
            parts = _parts(folder, uri)
            whole = _run([*fit, f"training.run_dir={folder}/{len(rounds)}"])[1:]
            rounds.append(parts | {WHOLE: whole})
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


def _parts(folder: str, uri: str) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each part, in a process of its own."""
    began = time.time()
    said, wall, cpu = _run([sys.executable, "-m", __name__, folder, uri, str(began)])
    parts: dict[str, tuple[float, float]] = json.loads(said.splitlines()[-1])
    known = [sum(times) for times in zip(*parts.values(), strict=True)]
    return parts | {"end of the process": (max(0.0, wall - known[0]), max(0.0, cpu - known[1]))}


def _run(command: list[str]) -> tuple[str, float, float]:
    """What a command says, its wall and its CPU seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _start(folder: str, uri: str, started: float) -> dict[str, tuple[float, float]]:
    """What ``fit`` does up to its first step; the clock is the wall's, as it spans two processes."""
    marks = {"": (started, 0.0), "Python": _now()}
    for package in ("torch", "lightning.pytorch"):
        import_module(package)
        marks[f"import {package}"] = _now()
    from sleep_lightning.config import load_experiment
    from sleep_lightning.run_directory import RunDirectory
    from sleep_lightning.tracking.mlflow_logger import MLflowRun
    from sleep_lightning.training.datamodule import TaskDataModule
    from sleep_lightning.training.module import SleepModule
    from sleep_lightning.training.trainer import build_trainer, quiet_lightning

    quiet_lightning()
    marks["import sleep_lightning"] = _now()
    logger = MLflowRun(uri, "startup")
    marks["MLflow: import, open a run"] = _now()
    experiment = load_experiment(None, OVERRIDES)
    module, data = SleepModule(experiment), TaskDataModule(experiment)
    run = RunDirectory(Path(tempfile.mkdtemp(dir=folder)))
    trainer = build_trainer(experiment, run, logger, [])
    marks["experiment, model, trainer"] = _now()
    trainer.fit(module, datamodule=data)
    marks["first step"] = _now()
    logger.end("FINISHED")
    marks["MLflow: end the run"] = _now()
    return {
        name: (marks[name][0] - marks[before][0], marks[name][1] - marks[before][1]) for before, name in pairwise(marks)
    }


def _now() -> tuple[float, float]:
    """The wall's time, which two processes share, and the CPU's of this one."""
    return time.time(), time.process_time()


if __name__ == "__main__":
    print(json.dumps(_start(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
