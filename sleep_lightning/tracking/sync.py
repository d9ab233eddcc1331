"""Sending what runs could not send to MLflow: their outboxes, wherever they lie."""

import warnings
from pathlib import Path

from sleep_lightning.config import anchored_uri
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.tracking.mlflow_logger import MLflowRun, sync_command
from sleep_lightning.tracking.outbox import OUTBOX, Outbox


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
    outbox = Outbox(folder / OUTBOX)
    store, pending = outbox.store, bool(outbox.pending)
    outbox.close()
    if not pending:
        return 0
    place = uri or store.get("uri")
    if place is None or "***" in place:
        raise ValueError(
            f"{folder / OUTBOX} does not say where to send it{' with which password' if place else ''}; give "
            f"tracking.uri=..."
        )
    run = RunDirectory(folder)
    logger = MLflowRun(
        anchored_uri(place),
        store.get("experiment") or "sleep_lightning",
        store.get("name") or folder.name,
        run.mlflow_run_id,
        outbox=folder / OUTBOX,
        opened=run.record_mlflow_run,
    )
    return logger.close()


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
