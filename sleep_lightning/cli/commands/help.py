"""``help``: what a key does."""

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", metavar="KEY|SECTION|arms|all", help="e.g. sleep.n_passes, or sleep")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli.help import explain, section_lines

    lines = list(section_lines() if a.what is None else explain(a.what))

    def show() -> int:
        print("\n".join(lines))
        return 0

    return show
