"""One training run as a process of its own: started, watched, ended and taken up again from outside.

What counts is the atomically written ``summary.json``, never the exit code (a process ended by SIGTERM may exit 0).
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sleep_lightning.config import Experiment
from sleep_lightning.run_directory import JsonFile, RunDirectory

URI_VARIABLE = "SLEEP_LIGHTNING_TRACKING_URI"
TRACKING = f"tracking.uri=${{oc.env:{URI_VARIABLE}}}"
"""The URI may hold a password: it is handed down where neither files nor the process list show it."""


@dataclass(frozen=True, eq=False)
class FitProcess:
    """``fit`` of an experiment in a directory.

    Attributes:
        experiment: what is trained; its ``training.run_dir`` is the directory.
        directory: where it goes.
    """

    experiment: Experiment
    directory: RunDirectory
    _summary: JsonFile = field(init=False, repr=False)
    _history: JsonFile = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_summary", JsonFile(self.directory.summary))
        object.__setattr__(self, "_history", JsonFile(self.directory.history))

    @property
    def log(self) -> Path:
        return self.directory.path.with_suffix(".log")

    @property
    def summary(self) -> dict[str, Any] | None:
        """``summary.json`` of the finished run; None until it is finished."""
        content = self._summary.read()
        return content if content is not None and content["status"] == "FINISHED" else None

    @property
    def history(self) -> list[dict[str, float]]:
        """Validations so far (not to be changed); cheap to ask for again."""
        content = self._history.read()
        return [] if content is None else content["history"]

    @property
    def flops_spent(self) -> float:
        """Training FLOPs so far: until its last validation, or exactly where it ended or saved upon SIGTERM.

        Steps after the last validation are not in it while the run goes on or once it has crashed; nor are steps that
        were trained a second time because a crash lost them.
        """
        validated = self.history[-1]["cost/train_flops"] if self.history else 0.0
        ended = self._summary.read()
        return validated if ended is None else max(validated, float(ended["train_flops"]))

    def progress(self) -> tuple[int, str]:
        """Steps and exact match at the last validation."""
        history = self.history
        return (int(history[-1]["step"]), f"{history[-1]['exact_match']:.3f}") if history else (0, "-")

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

    def start(self, threads: int) -> "Watched":
        """Start or resume it, in a session of its own: a signal to us is not one to it."""
        self.directory.path.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), URI_VARIABLE: self.experiment.tracking.uri}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(), stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        return Watched(psutil.Process(process.pid))

    def orphan(self) -> "Watched | None":
        """The process that trains it though nobody here has started it (its supervisor was killed), or None."""
        holder = self.directory.holder()
        try:
            return None if holder is None else Watched(psutil.Process(holder))
        except psutil.NoSuchProcess:
            return None


class Watched:
    """A process, ours or adopted."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    def alive(self) -> bool:
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def end(self) -> None:
        """Ask it to save and stop (SIGTERM). Its process group, as it may have children."""
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
        except ProcessLookupError:
            return

    def wait(self, seconds: float = 60.0) -> None:
        """Until it is gone; killed if it does not go."""
        try:
            self._process.wait(seconds)
        except psutil.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(seconds)
        except psutil.NoSuchProcess:
            return
