"""One MLflow run for one experiment run, however often it is interrupted.

Lightning's own MLFlowLogger writes every metric when it is logged (20 ms on SQLite), cuts parameters short and
cannot resume a finished run. This one buffers, writes from a thread, and reports what could not be written.
"""

import fcntl
import json
import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote, unquote, urlsplit

from lightning.pytorch.loggers import Logger

from sleep_lightning.config import redact, sqlite_file

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
BATCH = 1000
PARAM_LENGTH = 6000


class MLflowRun(Logger):
    """A Lightning logger.

    Args:
        uri: tracking URI.
        experiment: name of the experiment, created if it does not exist.
        run_name: name of a new run.
        run_id: resume this run instead of creating one.
        flush_seconds: time between two writes.
        spill: file for metrics that could not be written by the end of the run.

    Raises:
        ValueError: the store cannot be reached, or ``run_id`` is not in it.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str | None = None,
        run_id: str | None = None,
        flush_seconds: float = 10.0,
        spill: Path | None = None,
    ) -> None:
        super().__init__()
        self.uri, self.experiment, self.flush_seconds, self.spill = uri, experiment, flush_seconds, spill
        self._client, self._run_id = self._open(run_name, run_id)
        self._buffer: list[Metric] = []
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_regularly, name="mlflow-writer", daemon=True)
        self._thread.start()

    def _open(self, run_name: str | None, run_id: str | None) -> "tuple[MlflowClient, str]":
        file = sqlite_file(self.uri)
        if run_id is not None and file is not None and not file.exists():  # MLflow would create an empty one
            raise ValueError(
                f"tracking.uri={self.uri!r}: there is no file {file.absolute()}, though the run is recorded in it; say "
                f"where it lies (tracking.uri=sqlite:////...), or set tracking.enabled=false"
            )
        try:
            check_reachable(self.uri)
            with _alone(self.uri):
                client = open_client(self.uri)
                if run_id is not None:
                    client.update_run(run_id, status="RUNNING")
                    return client, run_id
                found = client.get_experiment_by_name(self.experiment)
                experiment_id = self._new_experiment(client) if found is None else found.experiment_id
            return client, cast(str, client.create_run(experiment_id, run_name=run_name).info.run_id)
        except store_errors() as error:
            raise ValueError(
                f"tracking.uri={redact(self.uri)!r} cannot be used: {reason(error, self.uri)}; "
                f"check it, or set tracking.enabled=false"
            ) from error

    def _new_experiment(self, client: "MlflowClient") -> str:
        """Artifacts go to ``mlruns/`` of the current directory, unless the store is a server, which decides.

        MLflow decodes a path like ``50%25``: there the place is given as a URI.
        """
        place = Path("mlruns").absolute() / quote(self.experiment, safe="")
        decoded = sqlite_file(self.uri) is not None and unquote(str(place.parent)) != str(place.parent)
        location = place.as_uri() if decoded else None
        return cast(str, client.create_experiment(self.experiment, artifact_location=location))

    @property
    def name(self) -> str:
        return self.experiment

    @property
    def version(self) -> str:
        return self._run_id

    @property
    def run_id(self) -> str:
        """The MLflow run."""
        return self._run_id

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Record parameters, those of an experiment as ``section.key``; one that is already recorded with another value
        (in a resumed run) becomes a tag."""
        from mlflow.entities import Param

        sections = params.get("experiment", {})
        params = {name: value for name, value in params.items() if name != "experiment"} | {
            f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()
        }
        known = self._client.get_run(self._run_id).data.params
        text = {key: str(value)[:PARAM_LENGTH] for key, value in params.items()}
        new = [Param(key, value) for key, value in text.items() if key not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(self._run_id, params=new[start : start + 100])
        for key, value in text.items():
            if known.get(key, value) != value:
                self._client.set_tag(self._run_id, f"resumed.{key}", value)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Buffer metrics; they are in the store ``flush_seconds`` later."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._lock:
            self._buffer += [Metric(key, float(value), now, step or 0) for key, value in metrics.items()]

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run."""
        self._client.log_artifact(self._run_id, str(path), folder)

    @contextmanager
    def forgiving(self, what: str) -> Iterator[None]:
        """Warn, and leave the block, if the store rejects ``what`` or cannot be reached (checked first, as MLflow would
        retry for minutes)."""
        try:
            check_reachable(self.uri)
            yield
        except store_errors() as error:
            warnings.warn(f"MLflow rejected {what}: {reason(error, self.uri)}", stacklevel=3)

    def flush(self) -> int:
        """Write the buffer; returns the number of metrics that could not be written, which stay buffered."""
        with self._writing:
            while True:
                with self._lock:
                    batch = self._buffer[:BATCH]
                if not batch:
                    return 0
                try:
                    self._client.log_batch(self._run_id, metrics=batch)
                except store_errors() as error:
                    text = f"MLflow rejected {len(batch)} metrics, will retry: {reason(error, self.uri)}"
                    warnings.warn(text, stacklevel=2)
                    return len(self._buffer)
                with self._lock:
                    del self._buffer[: len(batch)]

    def _write_regularly(self) -> None:
        while not self._stop.wait(self.flush_seconds):
            self.flush()

    def save(self) -> None:
        """Lightning calls this after validations and checkpoints; the thread does the writing."""

    def finalize(self, status: str) -> None:
        """Lightning calls this at the end of every stage: write, but leave the run open (``end`` closes it)."""
        self.flush()

    def end(self, status: Status) -> None:
        """Write everything and close the run. Metrics that the store rejects go to the ``spill`` file."""
        self._stop.set()
        self._thread.join(timeout=30)
        if self.flush() and self.spill is not None:
            with self.spill.open("a") as file:
                file.writelines(json.dumps(dict(m)) + "\n" for m in self._buffer)
            warnings.warn(f"{len(self._buffer)} metrics are not in MLflow; they are in {self.spill}", stacklevel=2)
        try:
            self._client.set_terminated(self._run_id, status)
        except store_errors() as error:
            warnings.warn(f"MLflow did not close the run: {reason(error, self.uri)}", stacklevel=2)


def open_client(uri: str) -> "MlflowClient":
    """MLflow's client of a store, whose folder must be there."""
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store").setLevel(logging.WARNING)  # it announces every table it creates
    if "%" in uri and uri.startswith("sqlite:"):
        # MLflow would create the folder of sqlite:///... as it is written, with %3F for a question mark: a stray one
        uri = f"sqlite+pysqlite:{uri.removeprefix('sqlite:')}"
    return MlflowClient(uri)


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Lock an SQLite store while it is opened: MLflow creates its tables without a lock."""
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def reason(error: Exception, uri: str) -> str:
    """A store's error on one line, without its password."""
    return " ".join(str(error).split())[:200].replace(uri, redact(uri))


def store_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a tracking store that cannot be reached or rejects a request."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ImportError  # the last: a database driver


def check_reachable(uri: str) -> None:
    """Raises OSError at once where MLflow and SQLAlchemy would retry for minutes."""
    if (file := sqlite_file(uri)) is not None:
        if not file.parent.is_dir():
            raise OSError(f"there is no folder {file.parent}")
        return
    ports = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or ports.get(parts.scheme.partition("+")[0])
    except ValueError as error:  # a port that is none
        raise OSError(str(error)) from error
    if host is not None and port is not None:
        socket.create_connection((host, port), timeout=10).close()
