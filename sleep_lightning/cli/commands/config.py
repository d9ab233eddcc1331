"""``config``: print the resolved experiment."""

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="change a key, e.g. sleep.n_passes=4"
    )
    parser.add_argument("--config", metavar="YAML", help="experiment file, e.g. conf/rule110.yaml")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.config import load_experiment

    text = load_experiment(a.config, a.overrides).to_yaml()
    return lambda: print(text, end="") or 0
