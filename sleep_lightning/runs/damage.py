"""Files that a crash, a full disk or a bad sector has damaged: one sentence that names the file and what to do."""

import errno
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NUMBER = (int, float)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_STUMBLES = (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError)


class DamagedFile(ValueError):
    """A file that the program wrote does not hold what it wrote."""

    def __init__(self, path: Path, reason: object, remedy: str) -> None:
        super().__init__(f"{path} is damaged ({' '.join(str(reason).split())[:200]}); {remedy}")


class UnreadableFile(DamagedFile):
    """A file of the program that is there and cannot be opened, or a folder or a dangling link in its place."""

    def __init__(self, path: Path, error: OSError) -> None:
        name = shlex.quote(str(path))
        if (is_directory := os.path.isdir(path)) or os.path.islink(path):
            reason = "it is a directory" if is_directory else f"it is a link: {error.strerror}"
            remedy = f"put it aside: mv -T -- {name} {shlex.quote(f'{path}.aside')}"
        else:
            reason = error.strerror or type(error).__name__
            remedy = f"let yourself read it: chmod u+r -- {name}" if error.errno in _FORBIDDEN else "check the disk"
        ValueError.__init__(self, f"{path} cannot be read ({reason}); {remedy}")


class Each(dict[str, Any]):
    """In what ``check_content`` compares with: a mapping with any keys, whose values are all like one."""

    def __init__(self, like: Any) -> None:
        super().__init__({"": like})


class IfThere(dict[str, Any]):
    """In what ``check_content`` compares with: keys that may be missing."""


def read_json(path: Path, like: dict[str, Any], remedy: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        path: of the file.
        like: what it must hold: keys, each with a type, a mapping of its own keys, or a list with one of these.
        remedy: what to do if it is damaged.

    Raises:
        DamagedFile: it is no such object, or cannot be read.
        FileNotFoundError: there is none.
    """
    try:
        content: dict[str, Any] = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise DamagedFile(path, reason if path.stat().st_size else "it is empty", remedy) from error
    check_content(path, content, like, remedy)
    return content


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises UnreadableFile, or FileNotFoundError if nothing has its name."""
    try:
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.islink(path):
            raise
        raise UnreadableFile(path, error) from error


def check_content(path: Path, content: Any, like: Any, remedy: str) -> None:
    """Raises DamagedFile if what was read from a file does not fit; arguments as for ``read_json``."""
    if (lacking := misfit(content, like)) is not None:
        raise DamagedFile(path, lacking, remedy)


def misfit(content: Any, like: Any, where: str = "it") -> str | None:
    """What is wrong with the content (see ``read_json``), called ``where``; None if it fits."""
    pairs: list[tuple[Any, Any, str]] | None = None
    if isinstance(like, list):
        pairs = [(one, like[0], where) for one in content] if isinstance(content, list) else None
    elif not isinstance(like, dict):
        fits = isinstance(content, like) and (not isinstance(content, bool) or like is bool)
        return None if fits else f"{where} is {content!r}"
    elif isinstance(content, dict):
        if isinstance(like, Each):
            like = dict.fromkeys(content, like[""])
        elif isinstance(like, IfThere):
            like = {key: kind for key, kind in like.items() if key in content}
        if lacking := like.keys() - content.keys():
            return f"it lacks {min(lacking)}"
        pairs = [(content[key], kind, str(key)) for key, kind in like.items()]
    if pairs is None:
        return f"{where} is {content!r}"
    return next((found for pair in pairs if (found := misfit(*pair)) is not None), None)


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
