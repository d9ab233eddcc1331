"""A run on disk: one directory and one checkpoint lineage, however often it is interrupted."""

import fcntl
import json
import os
import pickle
import shlex
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

import torch

from sleep_lightning.config import Experiment, load_experiment


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
    ``history.json`` (validations so far), ``summary.json``."""

    path: Path

    @classmethod
    def create(cls, experiment: Experiment) -> "tuple[RunDirectory, IO[str]]":
        """A directory for a new run, which begins with ``record_experiment``, and its lock.

        Raises:
            ValueError: it holds a run already, another process uses it, or it cannot be created.
        """
        name = experiment.training.run_dir
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

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run. Raises ValueError if the directory holds none."""
        run = cls(Path(path))
        if not run.config.exists():
            raise ValueError(f"{path} is not a run directory (no config.yaml); runs are in runs/ by default")
        if not run.config.stat().st_size:
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
    def history(self) -> Path:
        return self.path / "history.json"

    def beside(self, suffix: str) -> Path:
        """A file next to the directory, named after it; names with dots stay apart."""
        return self.path.with_name(self.path.name + suffix)

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def mlflow_run_id(self) -> str | None:
        """The MLflow run this directory belongs to, if one was recorded."""
        return (read_json(self.record) or {}).get("mlflow_run_id")

    def lock(self) -> IO[str]:
        """Lock the directory for this process, until the file is closed or the process has ended in any way.

        Raises:
            ValueError: another process trains this run.
        """
        file = (self.path / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self.holder()
            file.close()
            raise ValueError(
                f"{self.path} is being trained by {holder}; wait for it, or end it: kill {holder and holder.pid}"
            ) from error
        file.truncate(0)
        print(os.getpid(), socket.gethostname(), file=file, flush=True)
        return file

    def holder(self) -> Holder | None:
        """The process that has locked the directory; None if none has."""
        try:
            with (self.path / "lock").open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    pid, _, host = file.read().strip().partition(" ")
                    return Holder(int(pid), host or socket.gethostname()) if pid else None
        except FileNotFoundError:
            return None
        return None

    def record_experiment(self, experiment: Experiment) -> None:
        write_text(self.config, experiment.to_yaml())

    def record_mlflow_run(self, run_id: str) -> None:
        write_json(self.record, {**(read_json(self.record) or {}), "mlflow_run_id": run_id})


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


def read_json(path: Path) -> dict[str, Any] | None:
    """Its content; None if there is no such file. Raises ValueError, naming it, if it holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a copy, or start a new run") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (no JSON object); restore it from a copy, or start a new run")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write by rename: a reader sees the old file or the new one, never a part of it."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write by fsync and rename, like ``write_json``: a crash or a full disk leaves the file before intact."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have ``write`` fill a file beside the target, which it replaces once it is on disk; a device is written to."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            write(file)
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class JsonFile:
    """A JSON object that another process rewrites by rename; parsed again only if the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._content: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        """Its content (shared: not to be changed); None if there is no such file."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._content, self._seen = json.loads(self._path.read_text()), seen
        except FileNotFoundError:
            self._content = self._seen = None
        return self._content


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file, or the best (else the last) one of a run directory, without running code from it.

    Raises:
        ValueError: there is none, or it was not written by this package.
    """
    file = Path(path)
    if file.is_dir():
        run = RunDirectory.open(file)
        file = run.best if run.best.exists() else run.last
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"--checkpoint {file} does not exist; give a run directory or a .ckpt file") from error
    except (OSError, RuntimeError, EOFError, ValueError, struct.error, pickle.UnpicklingError) as error:
        raise ValueError(f"--checkpoint {file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict) or "experiment" not in checkpoint:
        raise ValueError(f"--checkpoint {file} was not written by sleep_lightning (it holds no experiment)")
    return checkpoint


def experiment_of(checkpoint: dict[str, Any], overrides: list[str]) -> Experiment:
    """The experiment a checkpoint was trained in, with ``key=value`` changes on top."""
    return load_experiment(checkpoint["experiment"], overrides)
