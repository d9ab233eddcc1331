"""A run on disk: one directory and one checkpoint lineage, however often it is interrupted."""

import errno
import os
import shlex
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

from sleep_lightning.config import Experiment, Override, load_experiment
from sleep_lightning.machine.locks import LOOK_SECONDS, open_lock, take
from sleep_lightning.names import check_name
from sleep_lightning.runs.damage import DamagedFile, IfThere, UnreadableFile, read_bytes, read_json
from sleep_lightning.runs.files import write_json, write_text
from sleep_lightning.runs.space import naming

OUTBOX = "mlflow.jsonl"
"""What MLflow is still to be told: there as long as the run goes on or something is unsent (``tracking.outbox``)."""
CONSOLE = "console.log"
"""What a run has printed, over all its starts."""
SAVED = ".saved"
"""Empty file beside the checkpoints of a run that has saved one, so that a lost ``last.ckpt`` is missed."""

WRITTEN = [
    *("config.yaml", "run.json", "history.jsonl", "summary.json", OUTBOX, CONSOLE, "learning_curve.png"),
    *(f"checkpoints/{name}" for name in ("last.ckpt", "best.ckpt", "exception.ckpt", SAVED)),
]
"""Files that training writes into a run's directory, besides its lock."""


@dataclass(frozen=True)
class Holder:
    """The process that trains a run, possibly on another machine that shares the file system."""

    pid: int
    host: str

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        return f"process {self.pid}" if self.here else f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class RunDirectory:
    """``config.yaml``, ``run.json`` (MLflow run; starts and resumes), ``checkpoints/{last,best,exception}.ckpt``,
    ``history.jsonl`` (validations so far), ``summary.json``."""

    path: Path

    @classmethod
    def create(cls, experiment: Experiment) -> "tuple[RunDirectory, IO[str]]":
        """A directory for a new run, which begins with ``record_experiment``, and its lock.

        Raises:
            ValueError: the task's name cannot be a folder's, it holds a run already, another process uses it, or it
                cannot be created.
        """
        name = experiment.training.run_dir
        try:
            experiment.to_yaml().encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the experiment holds {error.object[error.start : error.end]!a}, which is not UTF-8 text (perhaps in "
                f"training.run_dir={name!a}, or in the name of the current directory); give a name in UTF-8"
            ) from error
        if name is None:
            check_name("task.name", experiment.task.name)
        try:
            run = cls(_fresh(experiment.task.name) if name is None else Path(name))
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"training.run_dir={name or 'runs/...'!r} cannot be written: {error.strerror}; choose another"
            ) from error
        lock = run.lock()
        if run.config.exists():
            lock.close()
            raise ValueError(
                f"training.run_dir={name!r} holds a run already; resume it with fit --resume {shlex.quote(str(name))}, "
                f"or choose another"
            )
        return run, lock

    def discard(self) -> None:
        """Remove a directory made for a run that was then refused; what others have put there stays."""
        with suppress(OSError):  # the refusal is what counts
            for file in (self.path / "lock", self.path / OUTBOX):
                file.unlink(missing_ok=True)
            for folder in (self.checkpoints, self.path, self.path.parent):
                folder.rmdir()

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run. Raises ValueError if the directory holds none."""
        run = cls(Path(path))
        if not os.path.lexists(run.config):  # False, too, for names that are too long
            around = run.path.parent.parent  # of a checkpoint
            fix = f"give {around}" if (around / "config.yaml").exists() else "runs are in runs/ by default"
            raise ValueError(f"{path} is not a run directory (no config.yaml); {fix}")
        if not read_bytes(run.config):
            raise ValueError(
                f"{run.config} is empty, perhaps since a disk was full; the checkpoints hold the experiment as well: "
                f"give --checkpoint to validate, test and predict, or start a new run"
            )
        return run

    @classmethod
    def newest(cls, root: str | Path = "runs") -> "RunDirectory":
        """The run started last under ``root``. Raises ValueError if there is none."""
        runs = sorted(Path(root).glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        if not runs:
            raise ValueError(f"there is no run under {root}/ to resume; start one with fit --config conf/rule110.yaml")
        return cls.open(runs[-1].parent)

    def load_config(self, overrides: Sequence[Override] = ()) -> Experiment:
        """The experiment in ``config.yaml``, changed. Raises ValueError, naming the file if it is at fault."""
        try:
            return load_experiment(self.config, overrides, saved=True)
        except ValueError as error:
            if overrides:
                self.load_config()  # raises if it is not the changes that are refused
                raise
            if (reason := str(error)).startswith(named := f"--config {self.config} "):
                remedy = "restore it (MLflow has a copy, an artifact of the run), or start again in another directory"
                raise DamagedFile(self.config, reason.removeprefix(named), remedy) from error
            raise ValueError(f"{self.config}: {reason}") from error

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def console(self) -> Path:
        return self.path / CONSOLE

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def latest_step(self) -> Path:
        """There while the run trains (``runs.progress``); nothing depends on it."""
        return self.path / "latest_step.json"

    def beside(self, suffix: str) -> Path:
        """A file next to the directory, named after it; names with dots stay apart."""
        return self.path.with_name(self.path.name + suffix)

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def mlflow_run_id(self) -> str | None:
        """The MLflow run this directory belongs to, if one was recorded."""
        return self.recorded().get("mlflow_run_id")

    def recorded(self) -> dict[str, Any]:
        """What ``run.json`` holds. Raises DamagedFile."""
        if not self.record.exists():
            return {}
        remedy = "remove it, and what follows is recorded as a new MLflow run"
        return read_json(self.record, IfThere(mlflow_run_id=str, path=str, sessions=[{"environment": dict}]), remedy)

    def lock(self) -> IO[str]:
        """Lock the directory for this process, until the file is closed or the process has ended in any way.

        Raises:
            ValueError: another process trains this run, or the directory cannot be written.
        """
        file = self._open_lock()
        if not take(file, seconds=LOOK_SECONDS):
            holder = self.holder()
            file.close()
            if holder is None or not holder.pid:
                raise ValueError(
                    f"{self.path} is locked by another process, which has not said who it is; wait for it, or find "
                    f"it: fuser -v -- {shlex.quote(str(self.path / 'lock'))}"
                )
            raise ValueError(f"{self.path} is being trained by {holder}; wait for it, or end it: kill {holder.pid}")
        try:
            with naming(self.path / "lock"):
                file.truncate(0)
                print(os.getpid(), socket.gethostname(), file=file, flush=True)
        except OSError:
            with suppress(OSError):  # what could not be written is tried again
                file.close()
            raise
        return file

    def _open_lock(self) -> IO[str]:
        """Also finds out whether all that a run writes can be written: later it would be in vain."""
        lock = self.path / "lock"
        for file in (lock, *(self.path / name for name in WRITTEN)):
            if os.path.isdir(file) or (os.path.islink(file) and not os.path.exists(file)):
                raise UnreadableFile(file, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        if os.path.lexists(self.checkpoints) and not os.path.isdir(self.checkpoints):
            aside = f"mv -T -- {shlex.quote(str(self.checkpoints))} {shlex.quote(f'{self.checkpoints}.aside')}"
            raise DamagedFile(self.checkpoints, "it is no directory", f"put it aside: {aside}")
        where = self.path
        try:
            for where in filter(os.path.isdir, (self.path, self.checkpoints)):
                if not os.access(where, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            where = lock
            return open_lock(lock)
        except OSError as error:
            raise ValueError(
                f"{where} cannot be written ({error.strerror}), and training writes there; make it writable, or train "
                f"in a copy: cp -r -- {shlex.quote(str(self.path))} COPY"
            ) from error

    def holder(self) -> Holder | None:
        """The process that has locked the directory; None if none has."""
        try:
            with (self.path / "lock").open(errors="replace") as file:
                if not take(file, shared=True):
                    pid, _, host = file.read().strip().partition(" ")
                    return Holder(int(pid), host or socket.gethostname()) if pid.isdecimal() else None
        except OSError:  # there is none, or it cannot be read
            return None
        return None

    def record_experiment(self, experiment: Experiment) -> None:
        write_text(self.config, experiment.to_yaml())

    def record_mlflow_run(self, run_id: str) -> None:
        write_json(self.record, {**self.recorded(), "mlflow_run_id": run_id, "path": str(self.path.absolute())})

    def original(self) -> "RunDirectory | None":
        """The run of which this is a copy: it is still where the record says, with the same MLflow run."""
        recorded = self.recorded()
        other = RunDirectory(Path(recorded.get("path", self.path)))
        try:
            if "mlflow_run_id" not in recorded or os.path.samefile(other.path, self.path):
                return None
            return other if other.mlflow_run_id == recorded["mlflow_run_id"] else None
        except (OSError, DamagedFile):
            return None


def _fresh(task: str) -> Path:
    """A directory of its own for a run without a name, made here: no other process gets the same."""
    first = Path(f"runs/{task}-{time.strftime('%Y%m%d-%H%M%S')}")
    first.parent.mkdir(parents=True, exist_ok=True)
    path = first
    for i in count(2):
        with suppress(FileExistsError):
            path.mkdir()
            break
        path = first.with_name(f"{first.name}-{i}")
    return path
