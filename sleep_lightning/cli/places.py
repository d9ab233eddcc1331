"""Files that options name: whether they can be read or written is known before any compute."""

import os
from pathlib import Path

from sleep_lightning.names import check_path
from sleep_lightning.runs.files import check_writable


def file_to_write(option: str, given: str | None) -> Path | None:
    """The file that an option names. Raises ValueError if it cannot be written."""
    if given is None:
        return None
    check_path(option, given)
    file = Path(given)
    try:
        if not file.parent.is_dir():
            raise ValueError(f"{option} {given}: there is no folder {file.parent}; create it first")
        check_writable(file)
    except OSError as error:
        raise ValueError(f"{option} {given} cannot be written: {error.strerror}; choose another place") from error
    return file


def check_checkpoint(given: str) -> None:
    """Raises ValueError if ``--checkpoint`` names nothing; torch is not imported for that."""
    check_path("--checkpoint", given)
    if not os.path.lexists(given):
        raise ValueError(f"--checkpoint {given} does not exist; give a run directory or a .ckpt file")
