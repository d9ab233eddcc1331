"""A sweep's folder: who runs it, how to find it by name, and the copy of its spec from which it resumes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from omegaconf import OmegaConf

from sleep_lightning.config import load_experiment
from sleep_lightning.machine.locks import LOOK_SECONDS, open_lock, take
from sleep_lightning.names import check_path
from sleep_lightning.runs.files import write_text
from sleep_lightning.sweep.spec import Sweep, load_sweep
from sleep_lightning.sweep.storage import JOURNAL, SPEC, is_sweep, saved_url, url_to_save

SWEEPS = Path("runs/sweeps")
"""Default parent folder of sweeps."""
LOCK = "supervisor.lock"
BASE = "base.yaml"


def find_sweep(name: str) -> Path:
    """The folder of a sweep, by name or path. Raises ValueError, naming the known ones, if there is none."""
    check_path("NAME", name)
    for folder in (SWEEPS / name, Path(name)):
        if is_sweep(folder):
            return folder
    known = [folder.name for folder in known_sweeps()]
    there = f"known are {', '.join(known)}" if known else "there is none yet; start one with sweep SPEC.yaml"
    raise ValueError(f"{name!r} is neither a sweep in {SWEEPS}/ nor the folder of one (with {JOURNAL}); {there}")


def known_sweeps() -> list[Path]:
    """Folders of the sweeps under ``runs/sweeps``, by name."""
    return sorted(folder for folder in SWEEPS.glob("*") if is_sweep(folder))


def save_sweep(sweep: Sweep, folder: Path) -> None:
    """Write the spec and its whole base experiment into the folder, so that the sweep depends neither on the files they
    came from nor on the current directory."""
    own: dict[str, object] = {"base": BASE, "overrides": [], "storage": url_to_save(sweep.spec.storage, folder)}
    write_text(folder / BASE, sweep.base.to_yaml())
    write_text(folder / SPEC, OmegaConf.to_yaml(OmegaConf.create(sweep.written_spec() | own)))


def load_saved(folder: Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep that was saved in the folder.

    Args:
        folder: of the sweep.
        overrides: ``key=value`` changes of its spec, for example another launcher, and of ``tracking``.

    Raises:
        ValueError: it has no copy of its spec, or the copy lacks the tracking store's password.
    """
    if not (folder / SPEC).exists():
        raise ValueError(f"{folder} has no {SPEC} (it was started by an earlier version); run its own YAML again")
    tracking = [change for change in overrides if change.startswith("tracking.")]
    sweep = load_sweep(folder / SPEC, [change for change in overrides if change not in tracking], saved=True)
    if not any(change.startswith("storage=") for change in overrides):
        sweep = replace(sweep, spec=replace(sweep.spec, storage=saved_url(folder)))
    if tracking:
        sweep = replace(sweep, base=load_experiment(sweep.base.to_dict(), tracking).anchored())
    try:
        sweep.base.check_tracking(f"give it again: sweep resume {folder} tracking.uri=...")
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return sweep


@contextmanager
def sole_supervisor(folder: Path) -> Iterator[None]:
    """Hold the lock of the sweep's folder. Raises ValueError if another process holds it (the kernel releases it when
    that one dies), or if the folder cannot be written."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open_lock(folder / LOCK)
        except OSError as error:
            raise ValueError(f"{folder} cannot hold the sweep: {error.strerror}; choose another --output") from error
        with file:
            if not take(file, seconds=LOOK_SECONDS):
                raise ValueError(f"{folder} is being run by another process; wait for it, or stop it")
            if not _is_at(file, folder / LOCK):  # who held it was refused, and has removed it
                continue
            yield
            return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def is_supervised(folder: Path) -> bool:
    """Whether a process runs the sweep now. Looking disturbs neither that process nor one that is starting:
    ``sole_supervisor`` waits for those that only look."""
    try:
        with (folder / LOCK).open() as file:
            return not take(file, shared=True)
    except OSError:  # never run, or not readable
        return False
