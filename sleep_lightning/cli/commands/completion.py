"""``completion``: a script by which a shell completes commands, options, files and keys."""

import argparse
from collections.abc import Callable

ALIAS = "sleep-lightning"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"), help=f'use it: eval "$({ALIAS} completion bash)"')


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli.completion import script

    def show() -> int:
        print(script(a.shell))
        return 0

    return show
