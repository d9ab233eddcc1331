"""``python -m sleep_lightning <command>``: dispatch, and one sentence with exit code 2 for bad input."""

import argparse
import sys
from collections.abc import Callable, Sequence

from sleep_lightning.cli.doctor.command import add_arguments as add_doctor_arguments
from sleep_lightning.cli.sweep_arguments import add_sweep_arguments, prepare_sweep, with_verb

COMMANDS = {
    "fit": "train a model, record it in MLflow",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "print a checkpoint's answers as JSON lines",
    "compare": "train several arms over seeds and print one table",
    "sweep": "search for the frontier of accuracy over cost",
    "reproduce": "run the reproduction sweeps and write RESULTS.md",
    "cost": "print what an experiment will take: FLOPs, bytes of fast weights, inference",
    "config": "print the resolved experiment as YAML",
    "bench": "measure speed and memory against named peers",
    "doctor": "check the installation, say what to do",
}


def build_parser() -> argparse.ArgumentParser:
    from sleep_lightning.cli.help import key_lines

    parser = argparse.ArgumentParser(
        prog="python -m sleep_lightning",
        description="Sleep-time consolidation for language models. A YAML file and key=value arguments set the keys.",
        epilog="keys:\n" + "\n".join(key_lines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=text, epilog=parser.epilog, formatter_class=parser.formatter_class
        )
        if name == "bench":
            command.add_argument(
                "names",
                nargs="*",
                metavar="BENCH",
                help="operator, step, memory, overhead, ranks, startup, storage (default: all)",
            )
            command.add_argument("--seconds", type=float, default=20, help="time per table (default: 20)")
            command.add_argument("--output", metavar="FILE", help="write the rows to a file (JSON)")
            continue
        if name == "sweep":
            add_sweep_arguments(command)
            continue
        if name == "doctor":
            add_doctor_arguments(command)
            continue
        if name == "reproduce":
            _add_reproduce_arguments(command)
            continue
        if name == "compare":
            _add_compare_arguments(command)
            continue
        command.add_argument("overrides", nargs="*", metavar="key=value", help="change a key, e.g. sleep.n_passes=4")
        if name in ("fit", "config", "cost"):
            command.add_argument("--config", metavar="YAML", help="experiment file, e.g. conf/rule110.yaml")
        if name == "fit":
            command.add_argument(
                "--resume", nargs="?", const="", metavar="RUN_DIR", help="go on with a run (default: the newest)"
            )
        if name in ("validate", "test", "predict"):
            command.add_argument("--checkpoint", required=True, metavar="RUN_DIR|CKPT", help="what was trained")
            command.add_argument("--output", metavar="FILE", help="write the result to a file (JSON)")
        if name == "predict":
            command.add_argument("--rows", type=int, default=8, help="sequences to answer (default: 8)")
    return parser


def _doctor_parser() -> argparse.ArgumentParser:
    """``doctor`` alone: the other commands' arguments need packages that may be missing or broken."""
    parser = argparse.ArgumentParser(prog="python -m sleep_lightning")
    add_doctor_arguments(parser.add_subparsers(dest="command").add_parser("doctor"))
    return parser


def _add_compare_arguments(command: argparse.ArgumentParser) -> None:
    from sleep_lightning.compare.arms import ARMS

    command.add_argument("config", metavar="YAML", help="experiment the arms change, e.g. conf/rule110.yaml")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="change a key for all arms")
    lines = "; ".join(f"{name}: {about}" for name, (about, _) in ARMS.items())
    command.add_argument(
        "--arms", nargs="+", required=True, metavar="ARM", help=f"n1, n2, ...: N passes; {lines}; or name:key=value;..."
    )
    command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    command.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    command.add_argument("--test-passes", nargs="+", type=int, default=[], metavar="N", help="also test with these N")
    command.add_argument("--output", metavar="DIR", help="where runs and results go (default: runs/compare-<yaml>)")


def _add_reproduce_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sweeps", metavar="DIR", default="sweeps", help="where reproduce_*.yaml lie (default: sweeps)"
    )
    command.add_argument(
        "--output", metavar="DIR", default=".", help="where RESULTS.md and results/ go (default: here)"
    )
    command.add_argument("--seconds", type=float, default=60, help="time for each question of speed (default: 60)")
    command.add_argument("--so-far", action="store_true", help="train nothing: score what is finished, also meanwhile")
    command.add_argument("--page-only", action="store_true", help="write RESULTS.md again from results/, run nothing")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = _parse(argv)
    try:
        run = _prepare(arguments)
    except ValueError as error:  # the user's mistakes, all found before any compute
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    texts = with_verb(sys.argv[1:] if argv is None else argv)
    parser = _doctor_parser() if texts[:1] == ["doctor"] and not {"-h", "--help"} & set(texts) else build_parser()
    arguments, rest = parser.parse_known_args(texts)
    if (rest and arguments.command in ("bench", "sweep", "reproduce")) or any(text.startswith("-") for text in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest  # key=value after an option
    if "=" in (getattr(arguments, "resume", None) or ""):  # fit --resume key=value: the newest run, changed
        arguments.overrides.insert(0, arguments.resume)
        arguments.resume = ""
    return arguments


def _prepare(a: argparse.Namespace) -> Callable[[], int]:
    """Read all input; what is returned computes."""
    if a.command == "config":
        from sleep_lightning.config import load_experiment

        text = load_experiment(a.config, a.overrides).to_yaml()
        return lambda: print(text, end="") or 0
    if a.command == "cost":
        from sleep_lightning.cli.cost import cost
        from sleep_lightning.config import load_experiment

        experiment = load_experiment(a.config, a.overrides)
        return lambda: cost(experiment)
    if a.command == "fit":
        from sleep_lightning.cli import fit

        job = fit.prepare(a.config, a.overrides, a.resume)
        return lambda: fit.fit(job)
    if a.command == "compare":
        from sleep_lightning.cli import compare

        if misplaced := [text for text in a.arms if "=" in text and ":" not in text]:
            raise ValueError(f"--arms {misplaced[0]!r} is a key=value: write those behind the YAML, before --arms")
        request = compare.prepare(a.config, a.overrides, a.arms, a.seeds, a.jobs, a.output, a.test_passes)
        return lambda: compare.compare(request)
    if a.command == "doctor":
        from sleep_lightning.cli.doctor import command

        return command.prepare(a)
    if a.command == "sweep":
        return prepare_sweep(a)
    if a.command == "reproduce":
        from sleep_lightning.cli import reproduce

        wanted = reproduce.prepare(a.sweeps, a.output, a.seconds, so_far=a.so_far, page_only=a.page_only)
        return lambda: reproduce.reproduce(wanted)
    if a.command == "bench":
        from sleep_lightning.cli import bench

        bench.check(a.names, a.seconds)
        return lambda: bench.bench(a.names, a.seconds, a.output)
    from sleep_lightning.cli import evaluate
    from sleep_lightning.training.evaluation import load_trained

    if a.command == "predict" and a.rows < 1:
        raise ValueError(f"--rows {a.rows} must be at least 1")
    experiment, model = load_trained(a.checkpoint, a.overrides)
    if a.command == "predict":
        return lambda: evaluate.predict(experiment, model, a.rows, a.output)
    return lambda: evaluate.evaluate(experiment, model, "validation" if a.command == "validate" else "test", a.output)


if __name__ == "__main__":
    sys.exit(main())
