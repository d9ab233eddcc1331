"""What ``SleepModule`` asks of the trainer it is given: refused in one sentence, or added."""

import warnings

import lightning.pytorch as pl

from sleep_lightning.config import Experiment
from sleep_lightning.training.callbacks.checkpoints import StepCheckpoint
from sleep_lightning.training.callbacks.preemption import Preemption
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.distributed.strategy import SleepDDPStrategy


def refuse_unsupported(trainer: pl.Trainer, experiment: Experiment) -> None:
    """Raise ValueError for settings of the trainer that would change or break a step without a word."""
    t = experiment.training
    if trainer.gradient_clip_val:
        raise ValueError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}): SleepModule clips by itself, over all its "
            f"backward calls; drop it and set training.clip_norm={trainer.gradient_clip_val} (now {t.clip_norm})"
        )
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}): SleepModule accumulates by itself; "
            f"drop it and set training.accumulate={trainer.accumulate_grad_batches}, which cuts each batch into "
            f"micro-batches (multiply training.batch_size by it to keep their size)"
        )
    if trainer.precision == "16-mixed":
        raise ValueError(
            'Trainer(precision="16-mixed"): gradients are clipped before its loss scaling is undone; use '
            'precision="bf16-mixed"'
        )
    if str(trainer.precision).endswith("-true") and not str(trainer.precision).startswith("32"):
        raise ValueError(
            f'Trainer(precision="{trainer.precision}"): fast weights and the optimizer need fp32; use '
            f'precision="bf16-mixed"'
        )
    if trainer.world_size > 1 and not isinstance(trainer.strategy, SleepDDPStrategy):
        raise ValueError(
            f"Trainer(strategy={type(trainer.strategy).__name__}): with it every rank would train on the whole batch; "
            f'use strategy="sleep_ddp", or "sleep_fsdp" to shard the model'
        )


def check_length(trainer: pl.Trainer, experiment: Experiment) -> None:
    """Raise ValueError for a training without an end; warn of one that the learning rate does not follow."""
    steps = experiment.training.max_steps
    endless = isinstance(getattr(trainer, "datamodule", None), TaskDataModule)
    if endless and trainer.max_steps == -1:
        raise ValueError(
            f"Trainer(max_epochs={trainer.max_epochs}): the task's batches have no end, and so no epoch; use "
            f"max_steps={steps}"
        )
    if endless and trainer.max_steps != steps:
        warnings.warn(
            f"Trainer(max_steps={trainer.max_steps}): the learning rate follows training.max_steps={steps}; set them "
            f"alike",
            stacklevel=2,
        )


def default_callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """Callbacks that the trainer lacks: FLOPs and tokens beside every metric, and, with several ranks, a stop that
    they agree on."""
    wanted: list[type[pl.Callback]] = [ResourceMonitor]
    present = tuple(type(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if isinstance(trainer.strategy, SleepDDPStrategy) or any(issubclass(one, Preemption) for one in present):
        wanted += [Preemption, StepCheckpoint]
    return [kind() for kind in wanted if not any(issubclass(one, kind) for one in present)]
