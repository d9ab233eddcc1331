"""Files that a crash, a full disk or a bad sector has damaged: one sentence that names the file and what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NUMBER = (int, float)
_STUMBLES = (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError)


class DamagedFile(ValueError):
    """A file that the program wrote does not hold what it wrote."""

    def __init__(self, path: Path, reason: object, remedy: str) -> None:
        super().__init__(f"{path} is damaged ({' '.join(str(reason).split())[:200]}); {remedy}")


def read_json(path: Path, like: dict[str, Any], remedy: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        path: of the file.
        like: what it must hold: keys, each with a type, a mapping of its own keys, or a list with one of these.
        remedy: what to do if it is damaged.

    Raises:
        DamagedFile: it is no such object.
        OSError: it cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise DamagedFile(path, reason if path.stat().st_size else "it is empty", remedy) from error
    check_content(path, content, like, remedy)
    return content


def check_content(path: Path, content: Any, like: Any, remedy: str) -> None:
    """Raises DamagedFile if what was read from a file does not fit; arguments as for ``read_json``."""
    if (lacking := _misfit(content, like, "it")) is not None:
        raise DamagedFile(path, lacking, remedy)


def _misfit(content: Any, like: Any, where: str) -> str | None:
    """What is wrong with the content; None if it fits."""
    if isinstance(like, list):
        pairs = [(one, like[0], where) for one in content] if isinstance(content, list) else None
    elif isinstance(like, dict):
        pairs = [(content.get(key), x, key) for key, x in like.items()] if isinstance(content, dict) else None
    else:
        return None if isinstance(content, like) and not isinstance(content, bool) else f"{where} is {content!r}"
    if pairs is None:
        return f"{where} is {content!r}"
    return next((found for pair in pairs if (found := _misfit(*pair)) is not None), None)


def check_archive(path: Path) -> None:
    """Raises an exception of some kind if a zip file, of which a checkpoint is one, fails its checksums."""
    import zipfile  # not with every command

    with zipfile.ZipFile(path) as archive:
        if (broken := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Around the use of what a library has read from a file: what it stumbles over is damage.

    Raises:
        DamagedFile: in the place of errors of that kind.
    """
    try:
        yield
    except (*_STUMBLES, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedFile(path, f"{type(error).__name__}: {error}", remedy) from error
