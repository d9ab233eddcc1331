"""What was measured of a finished run, kept in its directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sleep_lightning.runs.damage import read_json
from sleep_lightning.runs.files import write_json

REMEDY = "remove it: it is measured again"


def kept(file: Path, steps: int, like: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of ``file``; measured, and written with its steps, unless it is of so many steps.

    Args:
        file: JSON in a run directory.
        steps: of the run, which may have been resumed since.
        like: what is read of it, as for ``read_json``.
        measure: gives it anew.

    Raises:
        DamagedFile: it is not as expected.
    """
    content: dict[str, Any] = read_json(file, like, REMEDY) if file.exists() else {}
    if content.get("steps") != steps:
        write_json(file, content := {"steps": steps} | measure())
    return content
