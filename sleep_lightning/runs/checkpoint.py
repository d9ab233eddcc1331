"""Reading checkpoints: whole, of the right structure, and without running code from them."""

import os
import pickle
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.config.values import flatten
from sleep_lightning.runs.damage import NUMBER, DamagedFile, Each, IfThere, UnreadableFile, check_archive, misfit
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.history import ROW

_COUNTS = {"total": Each(int), "current": Each(int)}
_FIT_LOOP = IfThere({"epoch_loop.state_dict": Each(int), "epoch_loop.batch_progress": IfThere(_COUNTS)})
_FIT_LOOP |= {"epoch_progress": IfThere(_COUNTS), "epoch_loop.manual_optimization.optim_step_progress": _COUNTS}
STRUCTURE: dict[str, Any] = {
    "experiment": Each(dict),
    "state_dict": Each(Tensor),
    "pytorch-lightning_version": str,
    "rng": Tensor,
    "epoch": int,
    "global_step": int,
    "optimizer_states": [dict],
    "lr_schedulers": [IfThere(last_epoch=int, base_lrs=[NUMBER], _last_lr=[NUMBER])],
    "loops": {"fit_loop": _FIT_LOOP},
    "callbacks": Each(dict),
    "TaskDataModule": {"position": int, "digest": str},
    "history": [ROW],
    "digests": Each(str),
    "hyper_parameters": {"experiment": dict},
    "train_flops": NUMBER,
    "train_tokens": NUMBER,
    **dict.fromkeys(("wall_s", "train_s", "untimed_steps", "peak_memory_bytes"), NUMBER),
    **dict.fromkeys(("energy_j", "step_memory_bytes", "predicted_step_memory"), (*NUMBER, NoneType)),
}
"""What Lightning, our callbacks and we read of a checkpoint, as far as it holds it."""
WEIGHTS = frozenset({"experiment", "state_dict"})
"""What a checkpoint needs to be evaluated: one of a user's own trainer may hold no more."""
MODULE = WEIGHTS | {"pytorch-lightning_version", "rng"}
"""For ``SleepModule.load_from_checkpoint``."""
RESUME = MODULE | {"epoch", "global_step", "optimizer_states", "lr_schedulers", "loops", "callbacks", "TaskDataModule"}
RESUME |= {"history", "train_flops", "wall_s"}
"""For a resume: what every version has saved."""
_MAY_BE_EMPTY = ("history",)


def load_checkpoint(
    path: str | Path, needed: Collection[str] = WEIGHTS, *, weights_only: bool = True
) -> dict[str, Any]:
    """Read a checkpoint file, or the best (else the last) one of a run directory, without running code from it.

    Args:
        path: of the file or the run directory.
        needed: keys of ``STRUCTURE`` that it must hold.
        weights_only: false: code from it may run.

    Raises:
        ValueError: there is none, it was not written by this package, or it is damaged: then with what to use instead.
    """
    file = checkpoint_file(path)
    try:
        return _read(file, needed, weights_only)
    except FileNotFoundError as error:
        raise ValueError(f"--checkpoint {file} does not exist; give a run directory or a .ckpt file") from error
    except _Broken as error:
        raise DamagedFile(file, error, instead_of(file, needed)) from error


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint that is meant: of a run directory the best, else the last one."""
    file = Path(path)
    if not os.path.isdir(file) or (file.suffix == ".ckpt" and not os.path.exists(file / "config.yaml")):
        return file
    run = RunDirectory.open(file)
    return run.best if os.path.lexists(run.best) else run.last


def instead_of(file: Path, needed: Collection[str]) -> str:
    """What to do without a checkpoint: use another of its folder, if one can be used."""
    for other in sorted(file.parent.glob("*.ckpt")):
        if other != file and is_readable(other, needed):
            return f"use {other} instead, or copy it there: {copying(other, file)}"
    return "train again, in another directory"


def copying(source: Path, target: Path) -> str:
    """The command that puts one checkpoint in the place of another."""
    return f"cp -- {shlex.quote(str(source))} {shlex.quote(str(target))}"


def is_readable(file: Path, needed: Collection[str]) -> bool:
    """Whether it is a checkpoint, undamaged, that holds what is needed."""
    try:
        return bool(_read(file, needed))
    except (ValueError, OSError):
        return False


_ARCHIVE = b"PK\x03\x04"
"""Beginning of a zip file, which a checkpoint is."""
_PICKLED = re.compile(r"GLOBAL (\S+)")


class _Broken(ValueError):
    """What is wrong with a checkpoint."""


def _read(file: Path, needed: Collection[str], weights_only: bool = True) -> dict[str, Any]:
    try:
        check_archive(file)
        content: Any = torch.load(file, map_location="cpu", weights_only=weights_only)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.islink(file):
            raise
        if error.filename is None:  # of a place within the file
            raise _Broken(str(error)) from error
        raise UnreadableFile(file, error) from error
    except pickle.UnpicklingError as error:  # whose text advises to load it all the same
        named = _PICKLED.search(str(error))
        what = named[1] if named else "something other than tensors and plain values"
        raise _Broken(f"it holds {what}, which could run code and is never loaded") from error
    except Exception as error:  # zip, pickle and torch each have their own
        if file.suffix != ".ckpt" and not _is_archive(file):
            raise ValueError(f"--checkpoint {file} is no checkpoint; give a run directory or a .ckpt file") from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise _Broken(reason if file.stat().st_size else "it is empty") from error
    if not isinstance(content, dict) or not content.keys() >= WEIGHTS:
        raise ValueError(f"--checkpoint {file} was not written by sleep_lightning (it holds no experiment)")
    if (wrong := _wrong(content, needed)) is not None:
        raise _Broken(wrong)
    return content


def _is_archive(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_ARCHIVE)) == _ARCHIVE


def _wrong(content: dict[str, Any], needed: Collection[str]) -> str | None:
    like = {key: kind for key, kind in STRUCTURE.items() if key in needed or key in content}
    if (found := misfit(content, like)) is not None:
        return found
    for key, value in flatten(content["experiment"]).items():
        if isinstance(value, Tensor):
            return f"experiment.{key} is {value!r}"
    for key in sorted(needed):
        if isinstance(content[key], dict | list) and not content[key] and key not in _MAY_BE_EMPTY:
            return f"it lacks {key}"
    try:
        Version(content.get("pytorch-lightning_version", "0"))
    except InvalidVersion as error:
        return f"pytorch-lightning_version: {error}"
    try:
        torch.Generator().set_state(content.get("rng", torch.get_rng_state()))
    except (RuntimeError, TypeError):
        return f"rng is no state of a generator, but {content['rng'].dtype} {list(content['rng'].shape)}"
    return None


def experiment_of(checkpoint: dict[str, Any], overrides: Sequence[str] = (), file: str | Path = "") -> Experiment:
    """The experiment a checkpoint was trained in, with ``key=value`` changes on top.

    Raises:
        ValueError: bad changes, or an experiment that cannot be had without them either: names the checkpoint's file.
    """
    try:
        return load_experiment(checkpoint["experiment"], overrides, saved=True)
    except ValueError as error:
        if overrides:
            experiment_of(checkpoint, (), file)  # raises if it is not the changes that are refused
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"the experiment in {file or 'the checkpoint'}: {reason}") from error
