"""Where a sweep's runs are trained: on this machine or as SLURM jobs."""

from sleep_lightning.sweep.launchers.launcher import Launcher
from sleep_lightning.sweep.launchers.local import LocalLauncher
from sleep_lightning.sweep.launchers.slurm import SlurmLauncher
from sleep_lightning.sweep.launchers.slurm_job import SlurmOptions

__all__ = ["Launcher", "LocalLauncher", "SlurmLauncher", "SlurmOptions"]
