"""One MLflow run for one experiment run, however often it is interrupted.

Lightning's own MLFlowLogger writes every metric when it is logged (20 ms on SQLite), cuts parameters short and
cannot resume a finished run. This one keeps what is logged in an ``Outbox`` and sends it from a thread: MLflow is a
side service, which may be away for a while and never ends a training.
"""

import shlex
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning.pytorch.loggers import Logger

from sleep_lightning.config import anchored_uri, sqlite_file
from sleep_lightning.redaction import one_line, redact, redact_uri
from sleep_lightning.tracking.mlflow_delivery import send_or_drop
from sleep_lightning.tracking.mlflow_run import open_run
from sleep_lightning.tracking.mlflow_store import check_reachable
from sleep_lightning.tracking.mlflow_views import RUNS_VIEW, ViewPage
from sleep_lightning.tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
BATCH = 1000
PARAM_LENGTH = 6000
PATIENCE = 30.0
"""Seconds that a run waits for a request that MLflow does not answer."""


class MLflowRun(Logger):
    """A Lightning logger.

    Args:
        uri: tracking URI.
        experiment: name of the experiment, created if it does not exist.
        run_name: name of a new run.
        run_id: resume this run instead of creating one.
        flush_seconds: time between two deliveries.
        outbox: file of what is to be sent; None: it is in memory alone.
        required: raise if the store cannot be reached; False: warn, and create the run once it can.
        opened: called with the run's id as soon as there is one, in whatever thread.
        written: ``experiment`` and ``name`` as the user wrote them, where those are references to the environment:
            the outbox keeps them so.

    Attributes:
        experiment_id: of the MLflow experiment; None as long as the store could not be reached.

    Raises:
        ValueError: the store cannot be reached, ``run_id`` is not in it, or another process keeps ``outbox``.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str | None = None,
        run_id: str | None = None,
        flush_seconds: float = 10.0,
        outbox: Path | None = None,
        *,
        required: bool = True,
        opened: Callable[[str], None] | None = None,
        written: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.uri, self.experiment, self.flush_seconds = uri, redact(experiment), flush_seconds
        self._run_name, self._run_id, self._opened = run_name and redact(run_name), run_id, opened
        self._client: MlflowClient | None = None
        self.experiment_id: str | None = None
        try:
            self._outbox = Outbox(outbox, named_store(uri, experiment, run_name, written), wait=PATIENCE)
        except BlockingIOError as error:
            raise ValueError(f"{error.filename} is being sent by another process; wait for it, or stop it") from error
        self._delivering, self._answers = threading.Lock(), 0
        self._away = self._silent = self._closed = self._running = False
        try:
            self._connected()
        except ValueError as error:
            if required:
                self._outbox.close()
                raise
            self._warn_away(str(error))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._deliver_regularly, name="mlflow-writer", daemon=True)
        self._thread.start()

    def _reached(self) -> "MlflowClient":
        """Raises OSError at once where MLflow would retry for minutes, or write to a file that is deleted."""
        check_reachable(self.uri)
        file = sqlite_file(self.uri)
        if self._client is not None and file is not None and not file.exists():
            self._client = None
            raise OSError(f"there is no file {file} any more")
        return self._connected()

    def _connected(self) -> "MlflowClient":
        if self._client is None:
            self._running = not self._outbox.ended  # else a file that came late is sent
            opened = open_run(self.uri, self.experiment, self._run_name, self._run_id, running=self._running)
            self._client, self._run_id, self.experiment_id = opened
            if self._opened is not None:
                self._opened(self._run_id)
        return self._client

    @property
    def name(self) -> str:
        return self.experiment

    @property
    def version(self) -> str:
        return self._run_id or ""

    @property
    def run_id(self) -> str | None:
        """The MLflow run; None as long as it could not be created."""
        return self._run_id

    @property
    def runs_page(self) -> ViewPage | None:
        """The page of all runs of the experiment; None as long as the store could not be reached."""
        return None if self.experiment_id is None else ViewPage.of(self.uri, self.experiment_id, RUNS_VIEW)

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Record parameters, those of an experiment as ``section.key``; one that is already recorded with another value
        (in a resumed run) becomes a tag."""
        self._outbox.add({"params": flat_params(params)})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics; they are in the store ``flush_seconds`` later. Those that an earlier process of this run has
        logged at this step or a later one are left out."""
        values = {key: float(value) for key, value in metrics.items()}
        self._outbox.add({"metrics": values, "step": step or 0, "time": int(time.time() * 1000)})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._outbox.add({"tags": dict(tags)})

    def log_dataset(self, dataset: Mapping[str, str], context: str) -> None:
        """Record what the run is trained on or scored with.

        Args:
            dataset: fields of MLflow's ``Dataset`` (``mlflow_delivery.as_dataset``).
            context: ``training`` or ``validation``.
        """
        self._outbox.add({"dataset": dict(dataset), "context": context})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run, as it is when it is sent."""
        place, base = path.absolute(), self._outbox.folder.absolute()
        named = place.relative_to(base) if place.is_relative_to(base) else place
        self._outbox.add({"artifact": str(named), "folder": folder})

    def finish(self, status: Status) -> None:
        """Record how the run ends, unless that is recorded."""
        if not self._outbox.ended:
            self._outbox.add({"end": status})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Send nothing meanwhile; a delivery that MLflow does not answer is of what was there before."""
        alone = self._delivering.acquire(timeout=self._patience)
        try:
            yield
        finally:
            if alone:
                self._delivering.release()

    def flush(self) -> int:
        """Send what there is, as long as MLflow answers; returns the number of entries that are not sent, which
        stay."""
        sender = threading.Thread(target=self._flush, name="mlflow-sender", daemon=True)
        sender.start()
        self._wait_for(sender)
        return len(self._outbox.pending)

    def _wait_for(self, sender: threading.Thread) -> None:
        """Wait until a thread has ended, or MLflow has answered nothing for a while: its request may take minutes."""
        answers = -1
        while sender.is_alive() and answers != self._answers:
            answers = self._answers
            sender.join(self._patience)
        if sender.is_alive():
            self._silent = True
            self._warn_away(f"no answer in {PATIENCE:.0f} s")

    @property
    def _patience(self) -> float:
        """Seconds to wait for an answer of MLflow, which is waited for once."""
        return min(PATIENCE, 1.0) if self._silent else PATIENCE

    def _flush(self) -> None:
        with self._delivering:
            try:
                if self._outbox.pending and not self._closed:
                    self._deliver(self._reached())
                self._away = self._silent = False
            except Exception as error:  # whatever it is: no record is worth the training
                if not self._closed:
                    self._warn_away(f"{type(error).__name__}: {one_line(error)}")

    def _deliver(self, client: "MlflowClient") -> None:
        """Raises an error of the store, with what follows unsent. A file that it does not take holds nothing up;
        one that is gone is dropped."""
        if not self._running and not self._outbox.ended:  # resumed
            client.update_run(cast(str, self._run_id), status="RUNNING")
            self._running = True
        unsent, refused = len(self._outbox.pending), None
        while unsent > 0 and not self._closed:
            batch = self._outbox.next(BATCH)
            try:
                send_or_drop(client, cast(str, self._run_id), batch, self._outbox.folder)
            except Exception as error:
                if "artifact" not in batch[0]:
                    raise
                if (file := self._outbox.folder / batch[0]["artifact"]).exists():
                    refused = error
                    self._outbox.add(batch[0])  # behind all others
                else:
                    warnings.warn(f"MLflow does not get {file}, which is no longer there", stacklevel=2)
            self._outbox.sent(len(batch))
            self._answers += 1
            unsent -= len(batch)
        if refused is not None:
            raise refused

    def _warn_away(self, why: str) -> None:
        """Once an outage."""
        if not self._away:
            self._away = True
            warnings.warn(f"MLflow does not take what is logged, which is kept and sent later: {why}", stacklevel=3)

    def _deliver_regularly(self) -> None:
        while not self._stop.wait(self.flush_seconds):
            self._flush()

    def save(self) -> None:
        """Lightning calls this after validations and checkpoints; the thread sends."""

    def finalize(self, status: str) -> None:
        """Lightning calls this at the end of every stage: send, but leave the run open (``end`` closes it)."""
        self.flush()

    def end(self, status: Status) -> None:
        """Record how the run ends and send everything. Says what could not be sent, and how to send it later."""
        self.finish(status)
        self.close()

    def close(self) -> int:
        """Send everything, and release the outbox. Returns the number of entries that could not be sent."""
        self._stop.set()
        self._wait_for(self._thread)
        left, path = self.flush(), self._outbox.path
        kept, self._closed = self._outbox.whole, True  # from now on another process may send the rest
        self._outbox.close()
        if left:
            where = (
                f"send it: {sync_command(path.parent)}" if path is not None and kept else "what is not on disk is lost"
            )
            warnings.warn(f"MLflow lacks {left} entries of this run; {where}", stacklevel=3)
        return left


def named_store(
    uri: str, experiment: str, run_name: str | None, written: Mapping[str, str] | None = None
) -> dict[str, str | None]:
    """Where an outbox is to be sent; arguments as for ``MLflowRun``."""
    return {"uri": redact_uri(anchored_uri(uri)), "experiment": experiment, "name": run_name} | dict(written or {})


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow shows them, those of an experiment as ``section.key``."""
    sections = params.get("experiment", {})
    flat = {name: value for name, value in params.items() if name != "experiment"} | {
        f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()
    }
    return {key: str(value)[:PARAM_LENGTH] for key, value in flat.items()}


def sync_command(folder: Path) -> str:
    """What sends the entries of a run, comparison or sweep later."""
    return f"python -m sleep_lightning tracking sync {shlex.quote(str(folder))}"
