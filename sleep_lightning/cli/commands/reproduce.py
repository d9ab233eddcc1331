"""``reproduce``: run the reproduction sweeps and write RESULTS.md."""

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sweeps", metavar="DIR", default="sweeps", help="with reproduce_*.yaml or paper_*.yaml (default: sweeps)"
    )
    parser.add_argument("--output", metavar="DIR", default=".", help="for the page and results/ (default: here)")
    parser.add_argument("--seconds", type=float, default=60, help="time for each question of speed (default: 60)")
    parser.add_argument("--so-far", action="store_true", help="train nothing: score what is finished, also meanwhile")
    parser.add_argument("--page-only", action="store_true", help="rewrite RESULTS.md from results/, run nothing")
    parser.add_argument("--paper", action="store_true", help="the paper's own sizes, which take a GPU, into PAPER.md")
    parser.add_argument("--share", metavar="I/N", help="train every N-th seed, from the I-th on: one of N machines")
    parser.add_argument(
        "--records",
        metavar="DIR",
        help="take finished runs from DIR/runs_NAME.jsonl, a file a sweep, and add those of here",
    )
    parser.add_argument("--join", metavar="DIR", nargs="+", default=[], help="results/ folders of other shares")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli import reproduce

    wanted = reproduce.prepare(
        a.sweeps,
        a.output,
        a.seconds,
        so_far=a.so_far,
        page_only=a.page_only,
        share=a.share,
        records=a.records,
        join=a.join,
        paper=a.paper,
    )
    return lambda: reproduce.reproduce(wanted)
