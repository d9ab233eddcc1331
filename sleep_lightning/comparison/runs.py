"""The runs of a comparison: each arm and seed a process of its own, started once, resumed if it was interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleep_lightning.comparison.arms import Arm
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.run_directory import RunDirectory

URI_VARIABLE = "SLEEP_LIGHTNING_TRACKING_URI"
TRACKING = f"tracking.uri=${{oc.env:{URI_VARIABLE}}}"
"""The URI may hold a password: it is handed down where neither files nor the process list show it."""

STEP = re.compile(r"^step (\d+): .*?exact match ([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Run:
    """One arm with one seed."""

    arm: Arm
    seed: int
    experiment: Experiment
    directory: RunDirectory

    @property
    def name(self) -> str:
        return f"{self.arm.name} seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.directory.path.with_suffix(".log")

    @property
    def summary(self) -> dict[str, Any] | None:
        """``summary.json`` of the finished run; None until it is finished."""
        if not self.directory.summary.exists():
            return None
        content: dict[str, Any] = json.loads(self.directory.summary.read_text())
        return content if content["status"] == "FINISHED" else None

    def progress(self) -> tuple[int, str]:
        """Steps and exact match at the last validation the log tells of."""
        found = STEP.findall(self.log.read_text()) if self.log.exists() else []
        return (int(found[-1][0]), found[-1][1]) if found else (0, "-")

    def last_words(self) -> str:
        """The log's last line: why a run failed."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def command(self) -> list[str]:
        """What trains it, or goes on with it."""
        fit = [sys.executable, "-m", "sleep_lightning", "fit"]
        path = self.directory.path
        if self.directory.config.exists():
            return [*fit, "--resume", str(path), TRACKING]
        experiment = path.with_suffix(".yaml")
        experiment.write_text(self.experiment.to_yaml())
        return [*fit, "--config", str(experiment), TRACKING]


def plan_runs(base: Experiment, arms: list[Arm], seeds: list[int], folder: Path, *more: str) -> list[Run]:
    """Every arm with every seed, seeds outermost, so that a comparison cut short has whole rows.

    Raises:
        ValueError: an arm that cannot be built, or a directory that holds a run of another experiment.
    """
    runs = []
    for seed in seeds:
        for arm in arms:
            path = folder / f"{arm.name}-seed{seed}"
            experiment = arm.apply(base, *more, f"training.seed={seed}", f"training.run_dir={path}")
            run = Run(arm, seed, experiment, RunDirectory(path))
            if run.directory.config.exists():
                _check_same(run)
            runs.append(run)
    return runs


def _check_same(run: Run) -> None:
    there, wanted = load_experiment(run.directory.config).to_dict(), run.experiment.to_dict()
    for sections in (there, wanted):
        sections["training"].pop("threads")
        del sections["tracking"]
    for section, keys in wanted.items():
        for key, value in keys.items():
            if there[section].get(key) != value:
                raise ValueError(
                    f"--output: {run.directory.path} holds a run with {section}.{key}={there[section].get(key)}, not "
                    f"{value}; give another --output, or remove it"
                )


def execute(runs: list[Run], jobs: int, threads: int) -> Iterator[dict[Run, subprocess.Popen[bytes]]]:
    """Run what is not finished, ``jobs`` at a time; yields those alive about twice a second.

    Closing the iterator (or an exception in its consumer) ends all processes with SIGTERM, upon which they save.
    """
    waiting = [run for run in runs if run.summary is None]
    alive: dict[Run, subprocess.Popen[bytes]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    try:
        while waiting or alive:
            while waiting and len(alive) < jobs:
                run = waiting.pop(0)
                run.directory.path.mkdir(parents=True, exist_ok=True)
                with run.log.open("ab") as log:
                    secret = {URI_VARIABLE: run.experiment.tracking.uri}
                    alive[run] = subprocess.Popen(
                        run.command(),
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=environment | secret,
                        start_new_session=True,  # a signal to us is not one to them: they are told once, by us
                    )
            yield dict(alive)
            time.sleep(0.5)
            alive = {run: process for run, process in alive.items() if process.poll() is None}
    finally:
        for process in alive.values():
            process.send_signal(signal.SIGTERM)
        for process in alive.values():
            process.wait()
