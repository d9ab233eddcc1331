"""Names of files and folders that a user gives, and texts that are shown on a terminal."""

import re
from pathlib import Path

LONGEST = 200
"""Bytes of a name at most: file systems take 255, and what is made of it is longer (``NAME-seed0``)."""
_MOST = 255
_CONTROL = r"\x00-\x1f\x7f"
_UNSEEN = re.compile(rf"[{_CONTROL}\x80-\x9f\u2028-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, or shows elsewhere."""


def check_name(where: str, name: str) -> None:
    """Raises ValueError, beginning with ``where``, if no folder can have that name."""
    if name in ("", ".", "..") or re.search(rf"[/{_CONTROL}]", name) or _size(name) > LONGEST:
        raise ValueError(
            f"{where}={_shown(name)} cannot be the name of a folder; use 1 to {LONGEST} bytes without slashes and "
            f"control characters, and neither . nor .."
        )


def check_path(where: str, path: str | Path) -> None:
    """Raises ValueError, beginning with ``where``, if no file or folder can have that path."""
    if path == "":
        raise ValueError(f"{where} is empty; name a file or folder, or drop it")
    if "\0" in str(path) or any(_size(part) > _MOST for part in Path(path).parts):
        raise ValueError(
            f"{where}={_shown(str(path))} cannot be a path: a name in it has over {_MOST} bytes, or a NUL; shorten it"
        )


def printable(text: str, kept: str = "") -> str:
    """A text with control characters written out, as ``\\x1b``, but those of ``kept``."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] in kept else repr(found[0])[1:-1], text)


def _size(name: str) -> int:
    return len(name.encode(errors="surrogatepass"))


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:50]}...")
