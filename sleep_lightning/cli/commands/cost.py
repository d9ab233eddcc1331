"""``cost``: print what an experiment takes, before its first step."""

import argparse
from collections.abc import Callable

from sleep_lightning.cli.commands.config import add_arguments as add_arguments


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli.cost import cost
    from sleep_lightning.config import load_experiment

    experiment = load_experiment(a.config, a.overrides)
    return lambda: cost(experiment)
