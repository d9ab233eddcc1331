"""The launcher of a sweep, by name."""

from pathlib import Path

from sleep_lightning.sweep.launchers.launcher import Launcher
from sleep_lightning.sweep.launchers.local import LocalLauncher
from sleep_lightning.sweep.launchers.ray import RayLauncher
from sleep_lightning.sweep.launchers.slurm import SlurmLauncher
from sleep_lightning.sweep.spec import SweepSpec
from sleep_lightning.sweep.trial import runs_path


def choose_launcher(spec: SweepSpec, folder: Path) -> Launcher:
    """The launcher of a sweep in a folder. Raises ValueError if it is not available here."""
    if spec.launcher == "slurm":
        return SlurmLauncher(spec.slurm, spec.threads)
    if spec.launcher == "ray":
        return RayLauncher(spec.ray, spec.threads)
    return LocalLauncher(runs_path(folder), spec.threads, spec.devices)
