"""``sweep work``: train what a sweep with ``launcher: workers`` asks for."""

import os
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sleep_lightning.cli.signals import SignalsInterrupt
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.process import URI_VARIABLE
from sleep_lightning.sweep.folder import BASE, find_sweep
from sleep_lightning.sweep.storage import saved_launcher
from sleep_lightning.sweep.worker import Worker
from sleep_lightning.training.runtime.environment import check_device


def prepare_work(name: str, idle_minutes: float) -> Path:
    """The folder of the sweep to work for. Raises ValueError: it has no queue, or cannot be worked for here."""
    folder = find_sweep(name)
    if (launcher := saved_launcher(folder)) != "workers":
        raise ValueError(f"{folder} has launcher: {launcher}, which needs no workers; set launcher: workers")
    if not idle_minutes > 0:
        raise ValueError(f"--idle-minutes {idle_minutes} must be above 0")
    base = load_experiment(folder / BASE)
    check_device(base)
    if base.tracking.enabled and "***" in base.tracking.uri and URI_VARIABLE not in os.environ:
        raise ValueError(
            f"tracking.uri={base.tracking.uri!r} was saved without its password; give the whole URI in {URI_VARIABLE}"
        )
    return folder


def work(folder: Path, idle_minutes: float) -> int:
    """Work until the sweep is done. Returns 0, or 128 + signal number: what it trained is saved for another worker."""
    console, signals = Console(), SignalsInterrupt()
    try:
        with signals, closing(Worker(folder).work(60 * idle_minutes)) as happenings:
            for line in happenings:
                console.print(Text(line), soft_wrap=True)
    except KeyboardInterrupt:
        return signals.exit_code
    return 0
