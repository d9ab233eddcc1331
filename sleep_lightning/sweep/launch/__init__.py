"""Where a sweep's runs are trained: on this machine, as SLURM jobs, or by workers that take them from a queue."""

from sleep_lightning.sweep.launch.launcher import Launcher
from sleep_lightning.sweep.launch.local import LocalLauncher
from sleep_lightning.sweep.launch.slurm import SlurmLauncher
from sleep_lightning.sweep.launch.slurm_job import SlurmOptions
from sleep_lightning.sweep.launch.workers import WorkersLauncher

__all__ = ["Launcher", "LocalLauncher", "SlurmLauncher", "SlurmOptions", "WorkersLauncher"]
