"""The Lightning trainer of an experiment."""

import logging
import warnings
from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger

from sleep_lightning.config import Experiment
from sleep_lightning.config.plugins import resolve
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training.callbacks.checkpoints import BestCheckpoint, StepCheckpoint
from sleep_lightning.training.checkpoint_io import AtomicCheckpointIO
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.distributed.fsdp_strategy import SleepFSDPStrategy
from sleep_lightning.training.distributed.launcher import RankLauncher
from sleep_lightning.training.distributed.strategy import SleepDDPStrategy
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.runtime.threads import choose_threads


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
        ".*callbacks used to create the checkpoint.*",  # by versions that saved last.ckpt with ModelCheckpoint
        ".*returned a view tensor.*",  # FSDP; nobody changes a block's output in place
    ):
        warnings.filterwarnings("ignore", message)


def plugged_callbacks(experiment: Experiment) -> list[pl.Callback]:
    """Those of ``training.callbacks``."""
    return [
        resolve("callback", spec, key=f"training.callbacks[{i}]")
        for i, spec in enumerate(experiment.training.callbacks)
    ]


def build_trainer(
    experiment: Experiment,
    run: RunDirectory | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
    *,
    saves: bool | None = None,
) -> pl.Trainer:
    """A Lightning trainer for the experiment, the same in every rank.

    Args:
        experiment: what is trained.
        run: where checkpoints go; only that of rank zero counts.
        loggers: of rank zero.
        callbacks: besides those for checkpoints.
        saves: whether checkpoints are written; None: if there is a run.
    """
    t = experiment.training
    choose_threads(t.threads, t.devices)
    checkpoints: list[pl.Callback] = []
    if run is not None if saves is None else saves:
        directory = None if run is None else run.checkpoints
        checkpoints = [BestCheckpoint(directory), StepCheckpoint(every=t.checkpoint_every)]
    alone = t.processes == 1
    trainer = pl.Trainer(
        strategy="auto" if alone else SleepFSDPStrategy() if t.sharding == "full" else SleepDDPStrategy(),
        accelerator=t.accelerator,
        devices=t.devices,
        num_nodes=t.num_nodes,
        precision="bf16-mixed" if t.precision == "bf16" else "32-true",
        max_steps=t.max_steps,
        max_epochs=-1,
        val_check_interval=t.val_every,
        check_val_every_n_epoch=None,
        log_every_n_steps=t.log_every,
        num_sanity_val_steps=0,
        inference_mode=False,  # per-pass diagnostics take gradients during validation
        logger=list(loggers) or False,
        callbacks=[*callbacks, *checkpoints],
        plugins=[AtomicCheckpointIO(), *([LightningEnvironment()] if alone else [])],  # never SLURM's, which requeues
        enable_checkpointing=bool(checkpoints),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=None if run is None else run.path,
    )
    if isinstance(launcher := trainer.strategy.launcher, RankLauncher):
        launcher.threads = t.threads
    return trainer


def validate_final_weights(trainer: pl.Trainer, module: SleepModule, data: TaskDataModule) -> bool:
    """Validate after a fit, unless its last step was one that validates; the scores are the module's.

    Returns:
        Whether that was to be done.
    """
    if module.scores and module.history and module.history[-1]["step"] == module.steps:
        return False
    trainer.validate(module, datamodule=data, verbose=False)
    return True
