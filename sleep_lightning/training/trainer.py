"""The Lightning trainer of an experiment."""

import logging
import os
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy

from sleep_lightning.config import Experiment
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training.callbacks.preemption import AtomicCheckpointIO
from sleep_lightning.training.distributed.ranks import ALONE, Ranks


def quiet_lightning() -> None:
    """Hints of Lightning and FSDP about devices, workers and tips are noise here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*IterableDataset.*__len__.*",
        ".*Checkpoint directory.*",
        ".*LeafSpec.*",
        ".*ModelCheckpoint with manual optimization.*",
        ".*srun.* command is available.*",
        ".*sync_dist=True.*",  # what is logged is the same in all ranks
        ".*returned a view tensor.*",  # FSDP; nobody changes a block's output in place
    ):
        warnings.filterwarnings("ignore", message)


def build_trainer(
    experiment: Experiment,
    run: RunDirectory | None,
    logger: Logger | None,
    callbacks: list[pl.Callback],
    ranks: Ranks = ALONE,
) -> pl.Trainer:
    """A single-device Lightning trainer for the experiment, the same in every rank; only the first writes files."""
    t = experiment.training
    if t.threads is not None:
        torch.set_num_threads(t.threads)
    elif ranks.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks.local_size))
    cuda = t.accelerator != "cpu" and torch.cuda.is_available()
    if run is not None:
        kwargs: dict[str, Any] = {"dirpath": run.checkpoints, "enable_version_counter": False}
        callbacks = [
            *callbacks,
            ModelCheckpoint(filename="last", every_n_train_steps=t.checkpoint_every, **kwargs),
            ModelCheckpoint(filename="best", monitor="val/exact_match", mode="max", **kwargs),
        ]
    device = torch.device("cuda", ranks.local_rank) if cuda else torch.device("cpu")
    return pl.Trainer(
        strategy=_sharded(device, ranks) if t.sharding == "full" else "auto",
        accelerator=t.accelerator,
        devices=[ranks.local_rank] if cuda else 1,
        precision="bf16-mixed" if t.precision == "bf16" else "32-true",
        max_steps=t.max_steps,
        max_epochs=-1,
        val_check_interval=t.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        inference_mode=False,  # per-pass diagnostics take gradients during validation
        logger=logger or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(writes=ranks.first), LightningEnvironment()],  # never SLURM's, which requeues
        enable_checkpointing=run is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=None if run is None else run.path,
    )


def _sharded(device: torch.device, ranks: Ranks) -> Strategy:
    """Imported here, as nobody else needs torch's sharded tensors, and they take long."""
    from sleep_lightning.training.distributed.fsdp_strategy import ShardedStrategy

    return ShardedStrategy(device, writes=ranks.first)
