"""Folders in which nobody but this user (and root) can put or change a file: what is loaded and run lies there."""

import functools
import os
import stat
import tempfile
import warnings
from pathlib import Path

from sleep_lightning.machine.home import NO_HOME, home

NAME = "sleep_lightning"
WARNED = "SLEEP_LIGHTNING_CACHE_WARNED"
"""Variable of the environment: why the usual cache is not used, once the user has been told."""


class NotPrivate(OSError):
    """A folder, or one around it, can be changed by another user; the text says which one and why."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/sleep_lightning``, by default ``~/.cache/sleep_lightning``, created for this user alone.

    Where that is not possible, and where others could change it, a folder of the user's in the temporary folder,
    with a warning, once for a process and its children. Raises OSError: that cannot be written either.
    """
    try:
        return private_folder(_usual_place())
    except OSError as error:
        place = fallback()
        why = str(error) if isinstance(error, NotPrivate) else f"cannot write {error.filename}: {error.strerror}"
        text = f"{why}; compiled code is kept in {place} instead, and built anew there"
        if os.environ.get(WARNED) != why:  # libraries reset what Python has warned about, and children begin anew
            warnings.warn(f"{text} (set XDG_CACHE_HOME to a folder of your own)", RuntimeWarning, stacklevel=1)
            os.environ[WARNED] = why
        return place


def fallback() -> Path:
    """The user's folder in the temporary folder, or, if others took its name, one of this process alone."""
    try:
        return private_folder(Path(tempfile.gettempdir()) / f"{NAME}-{os.geteuid()}")
    except OSError:
        return Path(_of_this_process().name)


def private_folder(folder: Path) -> Path:
    """Create a folder, and those around it that are missing, for this user alone (0700, whatever the umask).

    Returns:
        Its path without symbolic links: one of them might be changed later.

    Raises:
        NotPrivate: it was there, and is another user's or can be written by others; or a folder around it.
        OSError: it cannot be created.
    """
    try:
        real = folder.resolve()
    except RuntimeError as error:  # symbolic links in a circle
        raise NotPrivate(str(error)) from error
    missing = [one for one in (real, *real.parents) if not one.exists()]
    for one in reversed(missing):
        if why := why_not_private(one.parent, owned=False):
            raise NotPrivate(why)
        one.mkdir(0o700, exist_ok=True)
    if why := why_not_private(real):
        raise NotPrivate(why)
    if stat.S_IMODE(real.stat().st_mode) & 0o077:
        real.chmod(0o700)
    return real


def why_not_private(folder: Path, *, owned: bool = True) -> str | None:
    """Who else could change what lies in a folder; None if only this user and root can.

    Args:
        folder: a path without symbolic links. Of those around it, one that all can write is safe if it is sticky.
        owned: whether the folder itself must be this user's and closed; else it is taken for one around another.
    """
    # in a user namespace root's files may seem to be somebody else's: he has / as well
    trusted = {0, os.geteuid(), os.stat("/").st_uid}
    for one in (folder, *folder.parents):
        status = one.stat()
        inner = owned and one == folder
        if not stat.S_ISDIR(status.st_mode):
            return f"{one} is not a folder"
        if status.st_uid not in ({os.geteuid()} if inner else trusted):
            return f"{one} belongs to another user (number {status.st_uid})"
        if status.st_mode & 0o022 and (inner or not status.st_mode & stat.S_ISVTX):
            return f"{one} can be written by other users (chmod go-w, after a look at what lies there)"
    return None


def is_private_file(file: int) -> bool:
    """Whether an open file is a regular one that this user owns and others cannot write."""
    status = os.fstat(file)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _usual_place() -> Path:
    if (given := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():  # its standard: relative ones are ignored
        return given / NAME
    if (own := home()) is None:
        raise NotPrivate(NO_HOME)
    return own / ".cache" / NAME


@functools.cache
def _of_this_process() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix=f"{NAME}-", ignore_cleanup_errors=True)
