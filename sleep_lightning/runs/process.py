"""One training run as a process of its own: started, watched, ended and taken up again from outside.

What counts is the atomically written ``summary.json``, never the exit code (a process ended by SIGTERM may exit 0).
"""

import os
import re
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sleep_lightning.config import Experiment, redact
from sleep_lightning.runs.directory import JsonFile, RunDirectory, write_text

URI_VARIABLE = "SLEEP_LIGHTNING_TRACKING_URI"
TRACKING = f"tracking.uri=${{oc.env:{URI_VARIABLE}}}"
"""The URI may hold a password: it is handed down where neither files nor the process list show it."""
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
LINE_LENGTH = 500
"""Characters kept of a line of a log."""
_PLACE = re.compile(
    "(SLURM|TORCHELASTIC)_.*|(LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|ROLE_NAME|MASTER_(ADDR|PORT)"
)
"""Variables in which srun and torchrun tell a process its place among others."""
REAP_SECONDS = 5.0
"""From the end of a process' first thread to that of its last: only then it has an exit code."""
_FIT = [sys.executable, "-m", "sleep_lightning", "fit"]
_URI = re.compile(r"[\w+.-]+://[^\s'\"<>]+")


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
        """The log's last line."""
        return next(iter(self.log_tail(1)), "no output")

    def log_tail(self, lines: int = 10) -> list[str]:
        """The log's last lines that are not empty, without passwords."""
        if not self.log.exists():
            return []
        with self.log.open(errors="replace") as file:
            kept = deque((line.strip() for line in file if line.strip()), maxlen=lines)
        known = self.experiment.tracking.uri
        hidden = (line.replace(known, redact(known)) for line in kept)
        return [_URI.sub(lambda uri: redact(uri[0]), line)[:LINE_LENGTH] for line in hidden]

    def why_failed(self, exit_code: int | None) -> str:
        """One line on a process that left no result: its end, and the last it said.

        Args:
            exit_code: ``Watched.exit_code``.
        """
        if exit_code is not None and exit_code < 0:
            hint = ", perhaps out of memory" if exit_code == -signal.SIGKILL else f" ({_name(-exit_code)})"
            return f"killed by signal {-exit_code}{hint}"
        if exit_code in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGUSR1):
            return f"stopped by signal {exit_code - 128} ({_name(exit_code - 128)}) from outside"
        return f"exit code {'unknown' if exit_code is None else exit_code}: {self.last_words()}"

    def command(self) -> list[str]:
        """What trains it, or goes on with it."""
        return self.resume_command() if self.directory.config.exists() else self.begin_command()

    def begin_command(self) -> list[str]:
        """What trains it from its start; the experiment is written beside its directory."""
        return [*_FIT, "--config", str(self.write_experiment()), TRACKING]

    def write_experiment(self) -> Path:
        """Write what is trained beside its directory, by rename; returns where."""
        file = self.directory.path.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, self.experiment.to_yaml())
        return file

    def resume_command(self) -> list[str]:
        """What goes on with it, once it has begun (its directory holds ``config.yaml``)."""
        return [*_FIT, "--resume", str(self.directory.path), TRACKING]

    def environment(self, threads: int) -> dict[str, str]:
        """Its environment: ours, but not our place in a job of SLURM's or among ranks: it would take that for its own.

        Args:
            threads: CPU threads.
        """
        return inherited_environment() | {"OMP_NUM_THREADS": str(threads), URI_VARIABLE: self.experiment.tracking.uri}

    def start(self, threads: int, gpu: str | None = None) -> "Watched":
        """Start or resume it, in a session of its own: a signal to us is not one to it.

        Args:
            threads: CPU threads.
            gpu: its CUDA_VISIBLE_DEVICES; None: ours.
        """
        self.directory.path.mkdir(parents=True, exist_ok=True)
        environment = self.environment(threads)
        if gpu is not None:
            environment[VISIBLE_GPUS] = gpu
        with self.log.open("ab") as log:
            process = psutil.Popen(
                self.command(), stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        return Watched(process)

    def orphan(self) -> "Watched | None":
        """The process that trains it though nobody here has started it (its supervisor was killed), or None."""
        return process_of(self.directory)


def inherited_environment() -> dict[str, str]:
    """The environment for a run: ours, without our place in a SLURM job or among ranks."""
    return {name: value for name, value in os.environ.items() if not _PLACE.fullmatch(name)}


def _name(number: int) -> str:
    """A signal's name; real-time signals have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else "no name"


def process_of(directory: RunDirectory) -> "Watched | None":
    """The process of this machine that trains a run now, or None."""
    holder = directory.holder()
    try:
        return Watched(psutil.Process(holder.pid)) if holder is not None and holder.here else None
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

    def exit_code(self) -> int | None:
        """Of a process that has ended: minus the signal's number if one killed it; None if it was not started here."""
        try:
            code = self._process.wait(REAP_SECONDS if isinstance(self._process, psutil.Popen) else 0)
        except psutil.Error:
            return None
        return None if code is None else int(code)

    def gpus(self) -> str | None:
        """Its CUDA_VISIBLE_DEVICES; None if it has none, or has ended."""
        try:
            found: str | None = self._process.environ().get(VISIBLE_GPUS)
        except psutil.Error:
            return None
        return found

    def end(self) -> None:
        """Ask it to save and stop (SIGTERM). Its process group, as it may have children."""
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """End it and its children at once."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self, seconds: float = 60.0) -> None:
        """Until it is gone; killed if it does not go."""
        try:
            self._process.wait(seconds)
        except psutil.TimeoutExpired:
            self.kill()
            self._process.wait(seconds)
        except psutil.NoSuchProcess:
            return
