"""Where a sweep's runs are trained: on this machine, as SLURM jobs, or by workers that take them from a queue."""

from sleep_lightning.sweep.launchers.launcher import Launcher
from sleep_lightning.sweep.launchers.local import LocalLauncher
from sleep_lightning.sweep.launchers.slurm import SlurmLauncher
from sleep_lightning.sweep.launchers.slurm_job import SlurmOptions
from sleep_lightning.sweep.launchers.workers import WorkersLauncher

__all__ = ["Launcher", "LocalLauncher", "SlurmLauncher", "SlurmOptions", "WorkersLauncher"]
