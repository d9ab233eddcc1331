"""Built libraries in the user's cache. A library's name holds its content's hash, so that a damaged one is built anew.

The hash is no proof against other users, who could compute it too: that is the folder, which they cannot write.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sleep_lightning.machine.locks import open_lock, take
from sleep_lightning.machine.private import is_private_file

LOCK, BUILDING = "build.lock", "build-"


def find(folder: Path, key: str) -> Path | None:
    """The library of a key, whole and this user's own; damaged ones are removed. None if there is none."""
    for path in sorted(folder.glob(f"kernels-{key}-*.so")):
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(file, "rb") as opened:
                if not is_private_file(file):
                    continue
                if _name(key, opened.read()) == path.name:
                    return path
            path.unlink()
    return None


def keep(built: Path, folder: Path, key: str) -> Path:
    """Move a library that was just built into the folder, by rename. Returns its path there. Raises OSError."""
    path = folder / _name(key, built.read_bytes())
    built.chmod(0o700)
    with built.open("rb") as file:
        os.fsync(file.fileno())
    return built.replace(path)


@contextmanager
def builder(folder: Path, seconds: float) -> Iterator[Path]:
    """A temporary folder to build in, one process after another; what killed ones have left is removed.

    Args:
        folder: of the libraries.
        seconds: longest wait for another process; then both build.

    Raises:
        OSError: it cannot be created.
    """
    with ExitStack() as stack:
        if take(stack.enter_context(open_lock(folder / LOCK)), seconds=seconds):
            for left in folder.glob(f"{BUILDING}*/"):
                shutil.rmtree(left, ignore_errors=True)
        yield Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=BUILDING, dir=folder)))


def _name(key: str, content: bytes) -> str:
    return f"kernels-{key}-{hashlib.sha256(key.encode() + content).hexdigest()[:32]}.so"
