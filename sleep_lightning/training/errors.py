"""Failures with a known remedy: training that diverged, memory that ran out, plug-ins that cannot be built."""

import math
import re
import traceback

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from sleep_lightning.config import TrainingConfig
from sleep_lightning.config.plugins import CannotBuild
from sleep_lightning.refusals import UnusableRow
from sleep_lightning.runs.infrastructure import DIVERGED, Cause, cause_of
from sleep_lightning.runs.space import DiskFull
from sleep_lightning.training.distributed.exchange import Exchange
from sleep_lightning.training.distributed.sharded_muon import local

_SOURCE = re.compile(r"^\[[^]]*:\d+\] ")
"""The source location with which a library's error begins."""
_CONNECTOR = "trainer.connectors.checkpoint_connector"
"""Lightning's module that puts a checkpoint's content in place."""
_UNKNOWN_METRIC = "Early stopping conditioned on metric"
"""How Lightning's RuntimeError begins where EarlyStopping monitors what is not logged."""
_TAKEN = re.compile(r"port: (\d+),.* name: EADDRINUSE")


class Diverged(RuntimeError):
    """A loss, a gradient or the weights are no longer finite. Its text is one sentence."""

    def __init__(self, what: str, step: int, training: TrainingConfig) -> None:
        clip = "a lower training.clip_norm" if training.clip_norm else "training.clip_norm=1"
        rate = f"a lower training.muon_lr (now {training.muon_lr}) or training.adamw_lr (now {training.adamw_lr})"
        if training.optimizer != TrainingConfig.optimizer:
            rate = "a lower learning rate of training.optimizer"
        super().__init__(f"training diverged: {what} at step {step}; try {rate}, or {clip} (now {training.clip_norm})")


def check_loss(name: str, loss: float, step: int, training: TrainingConfig) -> None:
    """Raise Diverged if the loss is NaN or infinite; where it is read anyway, as reading it waits for the device."""
    if not math.isfinite(loss):
        raise Diverged(f"the {name} loss is {loss}", step, training)


def check_weights(
    model: nn.Module, step: int, training: TrainingConfig, exchange: Exchange | None = None, *, sharded: bool = False
) -> None:
    """Raise Diverged if a weight is NaN or infinite: before a checkpoint is written, so that each can be resumed.

    Where ranks have shards of the weights, all raise if one must.
    """
    finite = [bool(torch.stack([local(p.detach()).isfinite().all() for p in model.parameters()]).all())]
    if sharded and exchange is not None:
        finite = exchange.gather(finite)
    if not all(finite):
        raise Diverged("a weight is NaN or infinite", step, training)


def is_of_restore(error: Exception) -> bool:
    """Whether what a checkpoint holds was the cause, as far as we, Lightning and torch raised it, not a plug-in."""
    restoring = ("restore", "resume_start")
    frames = [(f.f_globals.get("__name__", ""), f.f_code.co_name) for f, _ in traceback.walk_tb(error.__traceback__)]
    restores = any(module.endswith(_CONNECTOR) and name.startswith(restoring) for module, name in frames)
    return restores and frames[-1][0].partition(".")[0] in {"torch", "lightning", "sleep_lightning"}


def is_misuse(error: BaseException) -> bool:
    """Whether the experiment must be changed: a plug-in that cannot be built, or that Lightning cannot use so; or its
    data, a row of which cannot be used."""
    known = CannotBuild | MisconfigurationException | UnusableRow
    return isinstance(error, known) or str(error).startswith(_UNKNOWN_METRIC)


def exit_code(error: Exception) -> int:
    """That of ``fit`` after an error: 2 for what must be changed, ``DIVERGED``, that of the machine's failure, or 1."""
    if is_misuse(error):
        return 2
    return DIVERGED if isinstance(error, Diverged) else int(cause_of(error) or 1)


def remedy(error: Exception) -> str | None:
    """One sentence on what to change after an error; None for errors without a known remedy."""
    if isinstance(error, Diverged | CannotBuild | UnusableRow):
        return str(error)
    if is_misuse(error):
        key = "Lightning" if isinstance(error, MisconfigurationException) else "training.callbacks"
        return f"{key}: {' '.join(str(error).split())}"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    cause = cause_of(error)
    if cause is Cause.DISK:
        full = DiskFull.of(error)
        what = " ".join(str(error).split()) if full is None else full.what
        return f"{what}; free some space, and fit --resume resumes from the last checkpoint"
    if cause is Cause.SERVICE:
        return f"a service cannot be reached ({first}); fit --resume resumes from the last checkpoint"
    if cause is Cause.NODE:
        said = _SOURCE.sub("", first)[:200].rstrip(".")
        return (
            f"another process of this run is gone or does not answer ({said}); its last output stands above, and "
            f"fit --resume resumes from the last checkpoint"
        )
    if isinstance(error, RuntimeError) and (taken := _TAKEN.search(str(error))):
        return f"port {taken[1]} of rank zero is taken by another program; give all ranks a free MASTER_PORT"
    if cause is Cause.MEMORY:
        return (
            f"out of memory: {first.rstrip('.')}; try training.checkpointing=pass, a higher training.accumulate, or "
            f"a lower training.batch_size or training.val_batch_size"
        )
    return None
