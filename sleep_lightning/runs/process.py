"""A training run as a child process: start, watch, stop and resume it from outside.

Whether it has finished is decided by the atomically written ``summary.json``, never by the exit code (a process
stopped by SIGTERM may exit with 0).
"""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sleep_lightning.config import Experiment
from sleep_lightning.config.references import HANDED_OVER
from sleep_lightning.redaction import redact
from sleep_lightning.runs.damage import NUMBER, read_json
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import JsonFile, write_text
from sleep_lightning.runs.history import HistoryFile
from sleep_lightning.runs.infrastructure import DIVERGED, Cause, Ended, cause_of_exit
from sleep_lightning.runs.progress import LatestFile, RunProgress
from sleep_lightning.runs.signals import STOP_SIGNALS
from sleep_lightning.runs.space import DiskFull

_SCORES = dict.fromkeys(("exact_match", "token_accuracy", "loss", "train_flops", "wall_s"), NUMBER)
SUMMARY: dict[str, Any] = {"status": str, **_SCORES}
"""What is read of ``summary.json``."""
RESTORED = "restored_from"
"""Of a summary: the file of records that a run was taken from, without its weights."""
TRACKING = f"tracking.uri=${{oc.env:{HANDED_OVER}}}"
"""The URI may hold a password: it is passed where neither files nor the process list show it."""
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
LINE_LENGTH = 500
"""Characters kept of a line of a log."""
RENDEZVOUS = "SLEEP_LIGHTNING_RENDEZVOUS"
"""Variable by which a launching rank tells the others the file in which they find each other."""
_PLACE = re.compile(
    "(SLURM|TORCHELASTIC)_.*|(LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|ROLE_NAME|MASTER_(ADDR|PORT)"
    f"|{RENDEZVOUS}"
)
"""Variables by which srun, torchrun and the launcher of ranks assign a process its rank."""
REAP_SECONDS = 5.0
"""Longest wait between the end of a process's main thread and that of its last: only then it has an exit code."""
_FIT = [sys.executable, "-m", "sleep_lightning", "fit"]


@dataclass(frozen=True, eq=False)
class FitProcess:
    """``fit`` of an experiment in a directory.

    Attributes:
        experiment: what is trained; its ``training.run_dir`` is the directory.
        directory: where it is written.

    Raises:
        ValueError: a class of the experiment is defined in a notebook, a script or a function.
    """

    experiment: Experiment
    directory: RunDirectory
    _summary: JsonFile = field(init=False, repr=False)
    _history: HistoryFile = field(init=False, repr=False)
    _latest: LatestFile = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for key, path in self.experiment.class_paths():
            if path.startswith("__main__.") or "<locals>" in path:
                raise ValueError(
                    f"{key}={path!r} cannot be imported by a child process; define the class at the top level of a "
                    f"file and give its class_path, for example my_module.{path.rpartition('.')[2]}"
                )
        object.__setattr__(self, "experiment", self.experiment.pinned())  # as fit records it
        name = shlex.quote(str(self.directory.path))
        again = f"remove it and resume the run, which writes it again: fit --resume {name}"
        object.__setattr__(self, "_summary", JsonFile(self.directory.summary, SUMMARY, again))
        object.__setattr__(self, "_history", HistoryFile(self.directory.history, again))
        object.__setattr__(self, "_latest", LatestFile(self.directory.latest_step))

    @property
    def log(self) -> Path:
        return self.directory.beside(".log")

    @property
    def summary(self) -> dict[str, Any] | None:
        """``summary.json`` of the finished run; None until then."""
        content = self._summary.read()
        return content if content is not None and content["status"] == "FINISHED" else None

    @property
    def history(self) -> list[dict[str, float]]:
        """Validations so far (not to be changed); cheap to read repeatedly."""
        return self._history.read()

    @property
    def flops_spent(self) -> float:
        """Training FLOPs so far: up to the last validation, or exact once it has ended or saved upon SIGTERM.

        Steps after the last validation are not counted while the run is active or if it has crashed; nor are steps
        trained twice because a crash lost them.
        """
        history = self.history
        validated = history[-1]["cost/train_flops"] if history else 0.0
        ended = self._summary.read()
        return validated if ended is None else max(validated, float(ended["train_flops"]))

    def progress(self) -> RunProgress:
        """The last step and the last validation, for display."""
        return RunProgress.of(self.history, self._latest.read())

    def last_words(self) -> str:
        """The log's last line."""
        return next(iter(self.log_tail(1)), "no output")

    def log_tail(self, lines: int = 10) -> list[str]:
        """The last non-empty lines of the log, without secrets."""
        if not self.log.exists():
            return []
        with self.log.open(errors="replace") as file:
            kept = deque((line.strip() for line in file if line.strip()), maxlen=lines)
        return [redact(line)[:LINE_LENGTH] for line in kept]

    def why_failed(self, exit_code: int | None) -> str:
        """One line on a process that left no result: how it ended, and the last line of its log."""
        if exit_code is not None and exit_code < 0:
            hint = ", perhaps out of memory" if exit_code == -signal.SIGKILL else f" ({_name(-exit_code)})"
            return f"killed by signal {-exit_code}{hint}"
        if exit_code is not None and exit_code - 128 in STOP_SIGNALS:
            return f"stopped by signal {exit_code - 128} ({_name(exit_code - 128)}) from outside"
        if exit_code == Cause.DISK and not self.log_tail(1):  # it could not be written either
            return f"exit code {exit_code}: {DiskFull(self.directory.path, OSError(errno.ENOSPC))}"
        return f"exit code {'unknown' if exit_code is None else exit_code}: {self.last_words()}"

    def ended(self, exit_code: int | None) -> Ended:
        """How a process has ended that left no result; its argument as for ``why_failed``."""
        return Ended(self.why_failed(exit_code), cause_of_exit(exit_code), exit_code == DIVERGED)

    def command(self) -> list[str]:
        """The command that starts the run, or resumes it."""
        return self.resume_command() if self.directory.config.exists() else self.begin_command()

    def begin_command(self) -> list[str]:
        """The command that starts it; writes the experiment beside its directory."""
        return [*_FIT, f"--config={self.write_experiment()}", self._tracking()]

    def write_experiment(self) -> Path:
        """Write the experiment beside the run's directory, by rename. Returns the file."""
        file = self.directory.beside(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, self.experiment.to_yaml(), patience=0)  # who starts runs has others to watch
        return file

    def resume_command(self) -> list[str]:
        """The command that resumes it; its directory must hold ``config.yaml``."""
        return [*_FIT, f"--resume={self.directory.path}", self._tracking()]

    def _tracking(self) -> str:
        """The change that says where to record it: a reference, the user's own or one to what ``variables`` holds."""
        override = self.experiment.uri_override()
        return override if isinstance(override, str) else TRACKING

    def environment(self, threads: int) -> dict[str, str]:
        """Its environment: this process's, without its rank and SLURM job, which the child would take for its own."""
        return inherited_environment() | self.variables(threads)

    def variables(self, threads: int) -> dict[str, str]:
        """What it needs of its environment, wherever it runs."""
        own = {"OMP_NUM_THREADS": str(threads), HANDED_OVER: self.experiment.tracking.uri}
        return self.experiment.references.environment() | own

    def start(self, threads: int, gpu: str | None = None) -> "Watched":
        """Start or resume it in a session of its own, so that signals to this process do not reach it.

        Args:
            threads: CPU threads.
            gpu: its CUDA_VISIBLE_DEVICES; None: inherited.
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
        """A running process that trains it and was started by another supervisor, since killed; or None."""
        return process_of(self.directory)


def inherited_environment() -> dict[str, str]:
    """The environment for a run: ours, without our place in a SLURM job or among ranks."""
    return {name: value for name, value in os.environ.items() if not _PLACE.fullmatch(name)}


def _name(number: int) -> str:
    """A signal's name; real-time signals have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else "no name"


def finished_summary(directory: RunDirectory, remedy: str) -> dict[str, Any] | None:
    """``summary.json`` of a run that has finished, not of one that was stopped; else None.

    Raises:
        DamagedFile: with this remedy.
    """
    try:
        content = read_json(directory.summary, SUMMARY, remedy)
    except FileNotFoundError:
        return None
    return content if content["status"] == "FINISHED" else None


def process_of(directory: RunDirectory) -> "Watched | None":
    """The process on this machine that trains a run, or None."""
    holder = directory.holder()
    try:
        return Watched(psutil.Process(holder.pid)) if holder is not None and holder.here else None
    except psutil.NoSuchProcess:
        return None


class Watched:
    """A child process, or an adopted one."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._ended = process, False

    def alive(self) -> bool:
        if self._ended:  # asked for every process of a sweep so far
            return False
        try:
            self._ended = not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            self._ended = True
        return not self._ended

    def exit_code(self) -> int | None:
        """Of a process that has ended; minus the signal's number if one killed it; None if it is not our child."""
        try:
            code = self._process.wait(REAP_SECONDS if isinstance(self._process, psutil.Popen) else 0)
        except psutil.Error:
            return None
        return None if code is None else int(code)

    def gpus(self) -> str | None:
        """Its CUDA_VISIBLE_DEVICES; None if unset or the process has ended."""
        try:
            found: str | None = self._process.environ().get(VISIBLE_GPUS)
        except psutil.Error:
            return None
        return found

    def end(self) -> None:
        """Ask it and its children to save and stop (SIGTERM to the process group)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and its children."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        pid = self._process.pid
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if self._process.is_running() and os.getpgid(pid) != pid:  # adopted, of a script or of torchrun
                for one in (*self._process.children(recursive=True), self._process):
                    with suppress(psutil.NoSuchProcess):
                        one.send_signal(number)
            else:
                os.killpg(pid, number)

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until it has ended; kill it after that time."""
        try:
            self._process.wait(seconds)
        except psutil.TimeoutExpired:
            self.kill()
            self._process.wait(seconds)
        except psutil.NoSuchProcess:
            return
