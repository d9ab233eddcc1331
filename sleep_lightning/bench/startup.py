"""Where the seconds go from the start of ``fit``'s process to the end of its first step."""

import json
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
OVERRIDES = ["task.ring_size=12", "sleep.window_size=12", "training.max_steps=1", "training.accelerator=cpu"]


def bench_startup(seconds: float) -> Iterator[dict[str, object]]:
    """Rows of seconds, medians over processes: the parts of a start one after the other, and a whole ``fit``."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        _parts(folder, uri)  # makes the database, as a sweep does before its first trial; fills the disk's cache
        fit = [sys.executable, "-m", "sleep_lightning", "fit", *OVERRIDES, f"tracking.uri={uri}"]
        rounds: list[dict[str, float]] = []
        end = time.perf_counter() + seconds
        while len(rounds) < ROUNDS or time.perf_counter() < end:
            parts = _parts(folder, uri)
            began = time.perf_counter()
            subprocess.run([*fit, f"training.run_dir={folder}/{len(rounds)}"], check=True, capture_output=True)
            rounds.append(parts | {"fit, all in all": time.perf_counter() - began})
        whole = median(sum(parts.values()) - parts["fit, all in all"] for parts in rounds)
        for name in rounds[0]:
            taken = median(parts[name] for parts in rounds)
            yield {
                "what": "start of a fit of one step",
                "shape": "laptop model, MLflow on SQLite",
                "contender": name,
                "seconds": taken,
                "share_of_parts": taken / whole,
                "rounds": len(rounds),
            }


def _parts(folder: str, uri: str) -> dict[str, float]:
    """Seconds of each part, in a process of its own."""
    words = [sys.executable, "-m", __name__, folder, uri, str(time.time())]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    ended = time.time()
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts | {"end of the process": ended - parts.pop("ended")}


def _start(folder: str, uri: str, started: float) -> dict[str, float]:
    """What ``fit`` does up to its first step; the clock is the wall's, as it spans two processes."""
    marks = {"start": started, "Python": time.time()}
    for package in ("torch", "lightning.pytorch"):
        import_module(package)
        marks[f"import {package}"] = time.time()
    from sleep_lightning.config import load_experiment
    from sleep_lightning.run_directory import RunDirectory
    from sleep_lightning.tracking.mlflow_logger import MLflowRun
    from sleep_lightning.training.datamodule import TaskDataModule
    from sleep_lightning.training.module import SleepModule
    from sleep_lightning.training.trainer import build_trainer, quiet_lightning

    quiet_lightning()
    marks["import sleep_lightning"] = time.time()
    logger = MLflowRun(uri, "startup")
    marks["MLflow: import, open a run"] = time.time()
    experiment = load_experiment(None, OVERRIDES)
    module, data = SleepModule(experiment), TaskDataModule(experiment)
    run = RunDirectory(Path(tempfile.mkdtemp(dir=folder)))
    trainer = build_trainer(experiment, run, logger, [])
    marks["experiment, model, trainer"] = time.time()
    trainer.fit(module, datamodule=data)
    marks["first step, checkpoint"] = time.time()
    logger.end("FINISHED")
    marks["MLflow: end the run"] = time.time()
    names = list(marks)
    parts = {name: marks[name] - marks[before] for before, name in pairwise(names)}
    return parts | {"ended": marks[names[-1]]}


if __name__ == "__main__":
    print(json.dumps(_start(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
