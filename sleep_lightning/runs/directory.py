"""A run on disk: one directory and one checkpoint lineage, however often it is interrupted."""

import fcntl
import json
import os
import pickle
import socket
import struct
import time
from dataclasses import dataclass
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
    """``config.yaml``, ``run.json`` (MLflow run), ``checkpoints/{last,best,exception}.ckpt``,
    ``history.json`` (validations so far), ``summary.json``."""

    path: Path

    @classmethod
    def create(cls, experiment: Experiment) -> "RunDirectory":
        """A directory for a new run, which begins with ``record_experiment``.

        Raises:
            ValueError: it holds a run already, or cannot be created.
        """
        name = experiment.training.run_dir or f"runs/{experiment.task.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        run = cls(Path(name))
        if run.config.exists():
            raise ValueError(
                f"training.run_dir={name!r} holds a run already; resume it with fit --resume {name}, or choose another"
            )
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"training.run_dir={name!r} cannot be written: {error.strerror}; choose another"
            ) from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run. Raises ValueError if the directory holds none."""
        run = cls(Path(path))
        if not run.config.exists():
            raise ValueError(f"{path} is not a run directory (no config.yaml); runs are in runs/ by default")
        return run

    @classmethod
    def newest(cls, root: str | Path = "runs") -> "RunDirectory":
        """The run started last under ``root``. Raises ValueError if there is none."""
        runs = sorted(Path(root).glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        if not runs:
            raise ValueError(f"there is no run under {root}/ to resume; start one with fit --config conf/rule110.yaml")
        return cls(runs[-1].parent)

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

    @property
    def mlflow_run_id(self) -> str | None:
        """The MLflow run this directory belongs to, if one was recorded."""
        file = self.path / "run.json"
        return json.loads(file.read_text())["mlflow_run_id"] if file.exists() else None

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
        self.config.write_text(experiment.to_yaml())

    def record_mlflow_run(self, run_id: str) -> None:
        write_json(self.path / "run.json", {"mlflow_run_id": run_id})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write by rename: a reader sees the old file or the new one, never a part of it."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write by rename, like ``write_json``."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


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
    return load_experiment(checkpoint["experiment"], overrides, saved=True)
