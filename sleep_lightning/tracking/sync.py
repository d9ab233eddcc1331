"""Sending what runs could not send to MLflow: their outboxes, wherever they lie."""

import warnings
from dataclasses import replace
from pathlib import Path

from sleep_lightning.config import TrackingConfig, anchored_uri
from sleep_lightning.config.references import resolved
from sleep_lightning.redaction import is_redacted
from sleep_lightning.runs.directory import OUTBOX, RunDirectory
from sleep_lightning.tracking.loggers import open_mlflow
from sleep_lightning.tracking.mlflow_logger import sync_command
from sleep_lightning.tracking.outbox import Outbox


def outboxes(folder: Path) -> list[Path]:
    """Folders at or below ``folder`` with something to be sent, or a run that goes on."""
    return sorted(path.parent for path in folder.rglob(OUTBOX))


def send(folder: Path, uri: str | None = None) -> int:
    """Send what the run, comparison or sweep in a folder has not sent. Returns the number of entries that are left.

    Args:
        folder: with an outbox.
        uri: of the store, if it is elsewhere now or has a password; None: as recorded.

    Raises:
        ValueError: the store is not known without ``uri``, or cannot be reached.
        BlockingIOError: its process is running, and sends them itself.
    """
    if not (folder / OUTBOX).exists():  # another process has sent it
        return 0
    outbox = Outbox(folder / OUTBOX)
    store, pending = outbox.store, bool(outbox.pending)
    outbox.close()
    if not pending:
        return 0
    place = uri or store.get("uri")
    if place is None or is_redacted(place):
        raise ValueError(
            f"{folder / OUTBOX} does not say where to send it{', with which password' if place else ''}; give --uri "
            f"URI to: {sync_command(folder)}"
        )
    tracking, directory = TrackingConfig(uri=anchored_uri(place)), RunDirectory(folder)
    name, run_id = folder.name, directory.mlflow_run_id
    if run_id is None:  # it is created now: references to the environment count
        if store.get("experiment"):
            tracking = replace(tracking, experiment=resolved("tracking.experiment", store["experiment"]))
        name = resolved("tracking.run_name", store.get("name") or name)
    return open_mlflow(tracking, directory, name, run_id).close()


def send_all(folder: Path, uri: str) -> None:
    """Send what runs below a folder left unsent when they were killed; those that are running send it themselves."""
    for place in outboxes(folder):
        if place == folder:
            continue
        try:
            if send(place, uri):
                return  # each would wait for the store
        except BlockingIOError:
            continue
        except ValueError as error:
            warnings.warn(f"{error}; send it later: {sync_command(folder)}", stacklevel=2)
            return
