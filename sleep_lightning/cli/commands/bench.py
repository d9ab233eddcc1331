"""``bench``: measure speed and memory."""

import argparse
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="BENCH",
        help="operator, step, memory, overhead, ranks, startup, storage, coordinates, session, pool (default: all "
        "these), or injection",
    )
    parser.add_argument("--seconds", type=float, default=20, help="time per table (default: 20)")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the rows to a file (JSON); of coordinates, sessions and injection also a picture beside it (PNG)",
    )
    parser.add_argument("--mlflow", metavar="URI", help="record the files in this MLflow store, in experiment bench")
    parser.add_argument(
        "--checkpoint", nargs="+", metavar="RUN|FILE", help="of injection: models that were trained on depo"
    )


def prepare(a: argparse.Namespace) -> Callable[[], int]:
    from sleep_lightning.cli import bench
    from sleep_lightning.cli.places import check_checkpoint, file_to_write
    from sleep_lightning.redaction import redact_uri
    from sleep_lightning.tracking.mlflow_logger import MLflowRun

    output = file_to_write("--output", a.output)
    bench.check(a.names, a.seconds, a.checkpoint)
    for checkpoint in a.checkpoint or ():
        check_checkpoint(checkpoint)
    if a.mlflow is not None and output is None:
        raise ValueError(
            f"--mlflow {redact_uri(a.mlflow)} records the files of --output; give one, bench.json for example"
        )
    mlflow = None if a.mlflow is None else MLflowRun(a.mlflow, "bench", "-".join(a.names) or "all")
    return lambda: bench.bench(a.names, a.seconds, output, a.checkpoint, mlflow)
