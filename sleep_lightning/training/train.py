"""Training in this process, for notebooks and scripts: nothing is written or recorded. ``fit`` does both."""

import sys

import lightning.pytorch as pl
from rich.console import Console

from sleep_lightning.config import Experiment
from sleep_lightning.training.callbacks.history import History
from sleep_lightning.training.callbacks.progress_bar import SleepProgressBar
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.runtime.environment import check_device
from sleep_lightning.training.runtime.malloc import tune_allocator
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul
from sleep_lightning.training.trainer import build_trainer, plugged_callbacks, quiet_lightning, validate_final_weights


def train(experiment: Experiment) -> SleepModule:
    """Train, with a printed line for every validation; the same weights as ``fit`` with the same experiment.

    Returns:
        The module, its ``model`` ready to be evaluated; ``history`` has a dict for every validation, the last of the
        final weights.

    Raises:
        ValueError: the device is not there, or the experiment wants more than this process.
    """
    t = experiment.training
    if t.processes > 1:
        raise ValueError(
            f"training.devices={t.devices} with training.num_nodes={t.num_nodes} takes {t.processes} processes, and "
            f"train() is one; use python -m sleep_lightning fit"
        )
    check_device(experiment)
    quiet_lightning()
    tune_allocator(t.allocator)
    choose_fp32_matmul(t.fp32_matmul)
    # kernels of notebooks claim colours; only a terminal can redraw a bar
    progress = SleepProgressBar(Console(force_jupyter=False, force_terminal=sys.stdout.isatty()))
    history = History()
    trainer = build_trainer(
        experiment, callbacks=[ResourceMonitor(), progress, history, *plugged_callbacks(experiment)]
    )
    pl.seed_everything(t.seed, verbose=False)
    module, data = SleepModule(experiment), TaskDataModule(experiment)
    trainer.fit(module, datamodule=data)
    if validate_final_weights(trainer, module, data):
        history.add_last(trainer, module)
        progress.print_scores(trainer, module)
    module.model.eval()
    return module
