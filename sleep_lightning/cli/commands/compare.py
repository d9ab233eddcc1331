"""``compare``: train several arms over several seeds."""

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from sleep_lightning.compare.arms import ARMS

    parser.add_argument("config", metavar="YAML", help="experiment the arms change, e.g. conf/rule110.yaml")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="change a key for all arms")
    names = ", ".join(["n1, n2, ... (N passes)", *ARMS])
    parser.add_argument(
        "--arms",
        nargs="+",
        required=True,
        metavar="ARM",
        help=f"{names}, or name:key=value;...; help arms explains them",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--test-passes", nargs="+", type=int, default=[], metavar="N", help="also test with these N")
    parser.add_argument("--output", metavar="DIR", help="where runs and results go (default: runs/compare-<yaml>)")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli import compare

    if misplaced := [text for text in a.arms if "=" in text and ":" not in text]:
        fix = f"an arm of changes begins with a name: {misplaced[0].replace(';', ':', 1)}"
        if ";" not in misplaced[0]:
            fix = "write those behind the YAML, before --arms"
        raise ValueError(f"--arms {misplaced[0]!r} is a key=value: {fix}")
    request = compare.prepare(a.config, a.overrides, a.arms, a.seeds, a.jobs, a.output, a.test_passes)
    return lambda: compare.compare(request)
