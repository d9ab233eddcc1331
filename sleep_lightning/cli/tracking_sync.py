"""``tracking sync``: send what runs, comparisons and sweeps could not send to MLflow."""

from collections.abc import Sequence
from pathlib import Path

from sleep_lightning.cli.console import plain_console
from sleep_lightning.tracking.sync import outboxes, send


def sync(folders: Sequence[Path], uri: str | None) -> int:
    """Send what is kept at or below the folders. Returns 0; 2 if a store is not known or cannot be reached."""
    console, errors, code = plain_console(), plain_console(stderr=True), 0
    places = list(dict.fromkeys(place for folder in folders for place in outboxes(folder)))
    if not places:
        console.print("nothing to send: MLflow has all of it", highlight=False)
    for place in places:
        try:
            left = send(place, uri)
        except BlockingIOError:
            console.print(f"{place}: is running, and sends it itself", highlight=False, soft_wrap=True, markup=False)
        except ValueError as error:
            errors.print(f"error: {error}", highlight=False, soft_wrap=True, markup=False)
            return 2
        else:
            said = f"{left} entries could not be sent" if left else "sent"
            console.print(f"{place}: {said}", highlight=False, soft_wrap=True, markup=False)
            code = code or (1 if left else 0)
    return code
