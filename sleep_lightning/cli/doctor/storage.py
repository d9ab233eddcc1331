"""Checks of the folder that runs go to: disk space, file locks."""

import fcntl
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sleep_lightning.cli.doctor.finding import Finding, one_line

FULL, NEARLY_FULL = 10**9, 5 * 10**9
"""Free bytes below which there is an error, a warning: a run of the paper's size keeps some 100 MB."""
NETWORK = ("nfs", "lustre", "cifs", "smb", "fuse.sshfs", "ceph", "beegfs", "gpfs", "9p")
LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock", "localflock")
"""Mount options with which a lock is not seen by other machines."""


def check_disk(runs: Path) -> Iterator[Finding]:
    """Free space where runs go."""
    folder = _existing(runs)
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free for {runs} (in {folder.absolute()})"
    if free >= NEARLY_FULL:
        yield Finding("disk", "ok", found)
    else:
        remedy = "delete old runs, or let training.run_dir (sweep, compare: --output) lie on another disk"
        yield Finding("disk", "error" if free < FULL else "warning", found, remedy)


def check_locks(runs: Path) -> Iterator[Finding]:
    """Whether files can be written where runs go, and whether a lock on one keeps a second holder out."""
    folder = _existing(runs)
    elsewhere = "let training.run_dir (sweep, compare: --output) lie on a local disk"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as first:
            held = _keeps_out(Path(first.name))
    except OSError as error:
        remedy = f"make it writable (chmod u+w {shlex.quote(str(folder.absolute()))}), or {elsewhere}"
        yield Finding("runs folder", "error", f"{folder.absolute()} cannot be used: {one_line(error)}", remedy)
        return
    kind, options = _mount(folder)
    found = f"{folder.absolute()} ({kind}) can be written"
    if not held:
        yield Finding("runs folder", "error", f"{found}, but file locks do not hold there", elsewhere)
    elif kind.startswith(NETWORK) and (local := [x for x in options if x in LOCAL_LOCKS]):
        remedy = f"run all processes of a sweep on one machine, or mount it without {local[0]}"
        yield Finding("runs folder", "warning", f"{found}, but locks hold on this machine only ({local[0]})", remedy)
    else:
        yield Finding("runs folder", "ok", f"{found}, file locks hold")


def _keeps_out(file: Path) -> bool:
    with file.open("a") as first, file.open("a") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _mount(folder: Path) -> tuple[str, list[str]]:
    """Kind and options of the file system a folder lies on."""
    import psutil

    place = folder.resolve()
    over = [one for one in psutil.disk_partitions(all=True) if place.is_relative_to(one.mountpoint)]
    if not over:
        return "unknown file system", []
    last = max(over, key=lambda one: len(Path(one.mountpoint).parts))
    return last.fstype, last.opts.split(",")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
