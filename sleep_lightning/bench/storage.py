"""Trials per second that each storage handles, with one writer and with several; and what many of them cost."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler

from sleep_lightning.bench.scale import bench_scale
from sleep_lightning.sweep.storage import check_url, open_storage

WRITERS = (1, 8, 32)
READY_SECONDS = 300
"""Timeout for all writers to start."""
ATTRIBUTES = 6
"""User attributes that a supervisor sets on a trial."""
POSTGRESQL_VARIABLE = "SLEEP_LIGHTNING_BENCH_STORAGE"
"""Environment variable with a PostgreSQL to measure, too: postgresql+psycopg://user@host/database."""


def bench_storage(seconds: float) -> Iterator[dict[str, object]]:
    """Rows of trials per second: each is asked for, given two parameters and a sweep's user attributes, and told.
    Then those of ``bench_scale``."""
    with tempfile.TemporaryDirectory() as folder:
        storages: dict[str, str | None] = {"journal": None, "SQLite": f"sqlite:///{folder}/bench.db"}
        if url := os.environ.get(POSTGRESQL_VARIABLE):
            storages["PostgreSQL"] = check_url(url)
        for name, storage in storages.items():
            for writers in WRITERS:
                yield {
                    "what": "storage",
                    "shape": f"ask, {ATTRIBUTES} attributes, tell",
                    "contender": name,
                    "writers": writers,
                    "trials_per_second": _measure(storage, Path(folder), writers, seconds),
                }
    yield from bench_scale()


def _measure(storage: str | None, folder: Path, writers: int, seconds: float) -> float:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = f"bench-{os.getpid()}-{writers}"
    opened = open_storage(storage, folder, to_write=True)
    optuna.create_study(study_name=name, storage=opened)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once for all writers
    ready = context.Barrier(writers)
    with ProcessPoolExecutor(writers, context, initializer=_begin_with, initargs=(ready,)) as pool:
        rates = [pool.submit(_write, storage, folder, name, seconds) for _ in range(writers)]
        total = sum(rate.result() for rate in rates)
    optuna.delete_study(study_name=name, storage=opened)
    return total


_ready: Barrier | None = None
"""Where the writers of a measurement wait for each other."""


def _begin_with(ready: Barrier) -> None:
    global _ready
    _ready = ready


def _write(storage: str | None, folder: Path, name: str, seconds: float) -> float:
    """Trials per second of one writer."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=name, storage=open_storage(storage, folder, to_write=True), sampler=RandomSampler()
    )
    assert _ready is not None
    _ready.wait(READY_SECONDS)
    trials, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or not trials:
        trial = study.ask()
        trial.suggest_int("sleep.n_passes", 1, 6)
        trial.suggest_float("training.muon_lr", 1e-4, 1e-1, log=True)
        for i in range(ATTRIBUTES):
            trial.set_user_attr(f"attribute{i}", [0.5] * 10)
        study.tell(trial, 0.5)
        trials += 1
    return trials / (time.perf_counter() - began)
