"""``validate`` and ``test``: score a checkpoint on a split; ``predict``: print its answers."""

import argparse
from collections.abc import Callable

MOST_ROWS = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="change a key, e.g. sleep.n_passes=4"
    )
    parser.add_argument("--checkpoint", required=True, metavar="RUN_DIR|CKPT", help="what was trained")
    predicts = parser.get_default("command") == "predict"
    kind = "JSON lines, one for each sequence" if predicts else "JSON"
    parser.add_argument("--output", metavar="FILE", help=f"write the result to a file ({kind})")
    if predicts:
        parser.add_argument("--rows", type=int, default=8, help="sequences to answer (default: 8)")
    else:
        parser.add_argument(
            "--beside", nargs="+", metavar="ARM", help="also answer without sleep: window, full-cache, bm25, ..."
        )


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli.places import check_checkpoint, file_to_write

    if a.command == "predict" and not 1 <= a.rows <= MOST_ROWS:
        raise ValueError(f"--rows {a.rows} must be from 1 to {MOST_ROWS}")
    output = file_to_write("--output", a.output)
    check_checkpoint(a.checkpoint)

    from sleep_lightning.cli import evaluate
    from sleep_lightning.compare.beside import with_changes
    from sleep_lightning.runs.checkpoint import checkpoint_file
    from sleep_lightning.tasks import Split
    from sleep_lightning.training.evaluation import load_trained
    from sleep_lightning.training.runtime.threads import choose_threads

    choose_threads()
    experiment, model = load_trained(a.checkpoint, a.overrides)
    if a.command == "predict":
        return lambda: evaluate.predict(experiment, model, a.rows, output)
    split: Split = "validation" if a.command == "validate" else "test"
    file = checkpoint_file(a.checkpoint)
    if a.beside:
        changed = with_changes(experiment, ["sleep", *a.beside])
        return lambda: evaluate.evaluate_beside(model, changed, split, output, of=str(file))
    return lambda: evaluate.evaluate(experiment, model, split, output, of=str(file))
