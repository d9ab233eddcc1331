"""``fit``: train a model."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from sleep_lightning.cli.commands.config import add_arguments as add_keys
from sleep_lightning.names import check_path

NEWEST = object()
"""``--resume`` without a directory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_keys(parser)
    parser.add_argument(
        "--resume", nargs="?", const=NEWEST, metavar="RUN_DIR", help="resume a run (default: the newest)"
    )


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli import fit

    newest = a.resume is NEWEST
    if a.config is None and a.resume is None and not a.overrides:
        known = sorted(map(str, Path("conf").glob("*.yaml")))
        which = f"one of {', '.join(known)}" if known else "a YAML file"
        raise ValueError(f"fit needs an experiment: --config with {which}; task.name=...; or --resume for a run")
    if not newest and a.resume is not None:
        check_path("--resume", a.resume)
        if re.match(r"[a-z_]+(\.\w+)+=", a.resume) and not Path(a.resume).is_dir():  # the newest run, changed
            a.overrides.insert(0, a.resume)
            newest = True
    job = fit.prepare(a.config, a.overrides, "" if newest else a.resume)
    return lambda: fit.fit(job)
