"""Where torch.compile and Triton keep what they have compiled, and load and run it again."""

import os
import tempfile
import warnings
from pathlib import Path

from sleep_lightning.machine.private import cache_directory, why_not_private

VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Variable of the environment: its folder in our cache. torch's own is ``/tmp/torchinductor_<user>``: any user of the
machine can make that before us, and torch makes it as it is imported, whether or not it compiles."""


def keep_compiled_code_private() -> None:
    """Set both places, for this process and its children, to folders that this user alone can write.

    What the user has set stays, unless others can write there: then a warning says so.
    """
    for variable, name in VARIABLES.items():
        given = os.environ.get(variable, "")
        if given.startswith(f"{tempfile.gettempdir()}/torchinductor_"):  # not set by the user: torch does it
            given = ""
        if given and (why := _why_not(Path(given))) is None:
            continue
        try:
            place = cache_directory() / name
            place.mkdir(0o700, exist_ok=True)
        except OSError:  # nothing can be kept: torch and Triton say so
            continue
        if given:
            warnings.warn(f"{variable}: {why}; {place} is used instead", RuntimeWarning, stacklevel=2)
        os.environ[variable] = str(place)


def _why_not(folder: Path) -> str | None:
    """Why others could put code into a folder, which need not be there yet."""
    try:
        real = folder.resolve()
        there = next(one for one in (real, *real.parents) if one.exists())
        return why_not_private(there, owned=there == real)
    except (OSError, RuntimeError) as error:
        return str(error)
