"""Where a sweep's runs are trained: on this machine, as SLURM jobs, or on a Ray cluster."""

from sleep_lightning.sweep.launchers.launcher import Launcher
from sleep_lightning.sweep.launchers.local import LocalLauncher
from sleep_lightning.sweep.launchers.ray import RayLauncher
from sleep_lightning.sweep.launchers.ray_options import RayOptions
from sleep_lightning.sweep.launchers.slurm import SlurmLauncher
from sleep_lightning.sweep.launchers.slurm_job import SlurmOptions

__all__ = ["Launcher", "LocalLauncher", "RayLauncher", "RayOptions", "SlurmLauncher", "SlurmOptions"]
