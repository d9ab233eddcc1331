"""``sweep``: its verbs, and what each of them needs."""

import argparse
from collections.abc import Callable, Sequence

from sleep_lightning.cli.parser import nearest

VERBS = {
    "run": "train what a sweep file asks for, or resume it; the word may be left out: sweep SPEC.yaml",
    "resume": "resume a sweep from the copy of its file in its folder",
    "report": "rewrite report.html, frontier.html, .png, .json and trials.csv from the folder alone",
    "list": "list the sweeps in runs/sweeps/",
    "show": "list the trials of a sweep; of more than 40 the running, failed and newest",
    "solved": "count the seeds that solve the task at each point, with Wilson's intervals",
    "law": "loss over N at equal training FLOPs, its minimum with intervals, and what a pass is worth in tokens",
    "best": "print a sweep's frontier; write its best trial as an experiment",
}
NAME = "name of a sweep (its folder in runs/sweeps/), or path of its folder"


def with_verb(argv: Sequence[str]) -> list[str]:
    """``SPEC.yaml ...`` as ``run SPEC.yaml ...``. A verb is only what comes first.

    Raises:
        ValueError: that is neither a verb nor the name of such a file.
    """
    arguments = list(argv)
    if not arguments or arguments[0] in (*VERBS, "-h", "--help"):
        return arguments
    if not arguments[0].startswith("-") and not arguments[0].endswith((".yaml", ".yml")):
        raise ValueError(
            f"sweep {arguments[0]}: neither a sweep file (its name ends in .yaml or .yml) nor a verb; "
            f"{nearest(arguments[0], VERBS)}"
        )
    return ["run", *arguments]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "A sweep with the name of a verb is reached as ./list.yaml, or after a verb: sweep show list"
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="SPEC.yaml | " + " | ".join(VERBS))
    for verb, text in VERBS.items():
        one = verbs.add_parser(verb, help=text, description=text)
        if verb == "run":
            one.add_argument("spec", metavar="SPEC.yaml", help="sweep file, e.g. sweeps/depo_depth_cost.yaml")
            one.add_argument("--dry-run", action="store_true", help="print points and their cost, train nothing")
            one.add_argument("--output", metavar="DIR", help="folder of the sweep (default: runs/sweeps/<name>)")
            one.add_argument(
                "--share", metavar="I/N", help="train the I-th of N shares of the seeds, in its own folder"
            )
        elif verb != "list":
            one.add_argument("name", metavar="NAME", help=NAME)
        if verb in ("run", "resume"):
            one.add_argument(
                "--records", metavar="FILE", help="take finished runs from this file, and add those of here"
            )
        if verb == "resume":
            one.add_argument(
                "changes", nargs="*", default=[], metavar="key=value", help="change its file, e.g. launcher=slurm"
            )
        if verb == "show":
            one.add_argument("--all", action="store_true", help="every trial, however many there are")
        if verb == "solved":
            one.add_argument("--threshold", type=float, default=0.95, metavar="X", help="exact match (default: 0.95)")
            one.add_argument(
                "--against",
                nargs="+",
                default=[],
                metavar="KEY=VALUE",
                help="compare the point that has these with the others, paired by seed (permutation test, Holm)",
            )
            one.add_argument("--csv", metavar="FILE", help="write every run with its validations")
            one.add_argument("--picture", metavar="FILE", help="draw the learning curve of every seed (PNG)")
        if verb == "best":
            one.add_argument("--export", metavar="FILE", help="write the best trial as an experiment (YAML) for fit")
            one.add_argument("--max-flops", type=float, metavar="X", help="the best with at most X training FLOPs")


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    if a.verb in ("run", "resume"):
        from sleep_lightning.cli import sweep

        if a.verb == "run":
            job = sweep.prepare(a.spec, a.output, a.share, a.records)
        else:
            job = sweep.prepare_resume(a.name, a.changes, a.records)
        if a.verb == "run" and a.dry_run:
            from sleep_lightning.cli.sweep_dry_run import dry_run

            return lambda: dry_run(job)
        return lambda: sweep.sweep(job)
    from sleep_lightning.cli import sweep_show  # without what trains

    if a.verb == "list":
        return sweep_show.list_sweeps
    found = sweep_show.find(a.name)
    if a.verb == "solved":
        from sleep_lightning.cli import sweep_solved

        counted = sweep_solved.prepare(found, a.threshold, a.against, a.csv, a.picture)
        return lambda: sweep_solved.show(counted)
    if a.verb == "law":
        from sleep_lightning.cli import sweep_law

        request = sweep_law.prepare(found)
        return lambda: sweep_law.show(request)
    if a.verb == "best":
        export = sweep_show.prepare_export(found, a.max_flops, a.export)
        return lambda: sweep_show.best(found, a.max_flops, export)
    return lambda: sweep_show.show(found, a.all) if a.verb == "show" else sweep_show.report(found)
