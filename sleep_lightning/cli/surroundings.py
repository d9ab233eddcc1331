"""What every command settles before it loads anything: files closed to others, a home folder, enough memory."""

import os
import sys

from sleep_lightning.machine.compiled_code import keep_compiled_code_private
from sleep_lightning.machine.home import NO_HOME, home
from sleep_lightning.machine.memory import check_memory, is_limited
from sleep_lightning.machine.private import fallback

WORLD = 0o002
_NO_MEMORY = ("annot allocate memory", "can't allocate memory", "failed to map segment", "can't start new thread")
"""Parts of the errors of libraries for which no memory was left."""


def settle() -> None:
    """Have nothing created that all users can write, and set HOME if there is none.

    Raises:
        ValueError: a limit of this process's memory is too low.
    """
    os.umask(os.umask(0o077) | WORLD)
    check_memory()
    if (own := home()) is None:
        own = fallback()
        print(f"{NO_HOME}; {own} is used, set HOME to choose another", file=sys.stderr)
    os.environ["HOME"] = str(own)  # libraries look there as they are imported: a traceback, or a folder named ~
    keep_compiled_code_private()


def out_of_memory(error: BaseException) -> str | None:
    """One sentence on an error for want of memory; None for others."""
    if not isinstance(error, MemoryError) and not any(text in str(error) for text in _NO_MEMORY):
        return None
    said = " ".join(str(error).split())[:200].rstrip(".")
    remedy = "raise its limit (ulimit -v unlimited)" if is_limited() else "free some, or use a machine with more"
    return f"out of memory{': ' if said else ''}{said}; {remedy}"
