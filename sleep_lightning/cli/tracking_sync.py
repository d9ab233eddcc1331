"""``tracking sync``: send what runs, comparisons and sweeps could not send to MLflow."""

from collections.abc import Sequence
from pathlib import Path

from sleep_lightning.cli.console import plain_console, say
from sleep_lightning.tracking.sync import outboxes, send


def sync(folders: Sequence[Path], uri: str | None) -> int:
    """Send what is kept at or below the folders. Returns 0; 1 if a store has not taken some of it; 2 if one is not
    known or cannot be reached: the others are sent to all the same."""
    console, errors, code = plain_console(), plain_console(stderr=True), 0
    places = list(dict.fromkeys(place for folder in folders for place in outboxes(folder)))
    if not places:
        console.print("nothing to send: MLflow has all of it", highlight=False)
    for place in places:
        try:
            left = send(place, uri)
        except BlockingIOError:
            say(console, f"{place}: is running, and sends it itself")
        except ValueError as error:
            say(errors, f"error: {error}")
            code = 2
        else:
            said = f"{left} entries could not be sent" if left else "sent"
            say(console, f"{place}: {said}")
            code = max(code, 1 if left else 0)
    return code
