"""``tracking sync``: send what runs could not send to MLflow."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=["sync"], help="send what is kept in the folders")
    parser.add_argument("folders", metavar="FOLDER", nargs="+", help="of runs, comparisons or sweeps, or of several")
    parser.add_argument("--uri", metavar="URI", help="of the store, with its password (default: as recorded)")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.names import check_path

    for folder in a.folders:
        check_path("tracking sync", folder)
        if not Path(folder).is_dir():
            raise ValueError(f"tracking sync {folder}: there is no such folder; runs are in runs/ by default")
    from sleep_lightning.cli.tracking_sync import sync  # it loads MLflow

    return lambda: sync([Path(folder) for folder in a.folders], a.uri)
