"""``plan``: whether an experiment fits a number of GPUs, and how long it takes there."""

import argparse
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.cli.commands.config import add_arguments as add_keys

if TYPE_CHECKING:
    from sleep_lightning.config import Experiment

MOST_GPUS, MOST_BYTES = 2**16, 2**63
UNITS = {"MB": 1e6, "GB": 1e9, "MiB": 2**20, "GiB": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_keys(parser)
    parser.add_argument("--gpus", type=int, default=1, metavar="K", help="number of GPUs, each a rank (default: 1)")
    parser.add_argument("--memory", default="80GiB", metavar="SIZE", help="of each, e.g. 24GiB (default: 80GiB)")
    parser.add_argument("--gpu", default="H100", metavar="NAME", help="for the hours (default: H100)")
    parser.add_argument(
        "--utilization", type=float, default=0.3, metavar="X", help="share of its peak that training reaches (0.3)"
    )
    parser.add_argument(
        "--passes", type=int, nargs="+", metavar="N", help="N to compare (default: 1, 2, 4 and its own)"
    )


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli.plan import show
    from sleep_lightning.cost.plan import PEAK_TFLOPS, plan
    from sleep_lightning.sleep.config import MOST_PASSES

    if not 1 <= a.gpus <= MOST_GPUS:
        raise ValueError(f"--gpus {a.gpus} must be from 1 to {MOST_GPUS}")
    memory = _bytes(a.memory)
    peaks = {name.lower(): peak for name, peak in PEAK_TFLOPS.items()}
    if a.gpu.lower() not in peaks:
        raise ValueError(f"--gpu {a.gpu} is not known; use one of {', '.join(PEAK_TFLOPS)}")
    if not 0 < a.utilization <= 1:
        raise ValueError(f"--utilization {a.utilization} must be above 0 and at most 1")
    experiment, tokenizer = load(a.config, a.overrides)
    passes = sorted(set(a.passes or ()))
    if passes and not 1 <= passes[0] <= passes[-1] <= MOST_PASSES:
        raise ValueError(f"--passes {passes} must be from 1 to {MOST_PASSES}")
    found = plan(experiment, a.gpus, memory, passes)
    flops_per_s = a.gpus * peaks[a.gpu.lower()] * 1e12 * a.utilization
    where = f"{a.gpus} x {a.gpu} at {a.utilization:.0%}"
    return lambda: show(experiment, found, memory, flops_per_s, where, tokenizer)


def load(config: str | None, overrides: Sequence[str]) -> tuple["Experiment", str | None]:
    """The experiment; of a directory with no more than its config it is planned with a tokenizer of our own, its name
    is returned: lengths are set by other keys."""
    from sleep_lightning.config import load_experiment

    try:
        return load_experiment(config, overrides), None
    except ValueError as error:
        named = re.match(r"task\.tokenizer=(.+) cannot be loaded", str(error))
        if named is None or not (Path(named[1]) / "config.json").is_file():
            raise
        for name in ("words", "bytes"):
            with suppress(ValueError):
                return load_experiment(config, [*overrides, f"task.tokenizer={name}"]), name
        raise


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(MB|GB|MiB|GiB)", text)
    if match is None or not 0 < (size := float(match[1]) * UNITS[match[2]]) < MOST_BYTES:
        raise ValueError(f"--memory {text} must be a size such as 80GiB or 24GB")
    return int(size)
