"""A finished run for an MLflow that does not know it: from a file of records, or trained without tracking.

It gets what ``fit`` would have logged, as far as its directory holds it: parameters, validations with their baselines,
results, and the software that trained it. Curves of training loss and system metrics are lost.
"""

import math
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sleep_lightning.config import TrackingConfig
from sleep_lightning.formatting import duration
from sleep_lightning.runs.directory import OUTBOX, RunDirectory
from sleep_lightning.runs.history import HistoryFile
from sleep_lightning.runs.process import RESTORED
from sleep_lightning.tracking.loggers import written_names
from sleep_lightning.tracking.mlflow_logger import flat_params, named_store
from sleep_lightning.tracking.mlflow_run import commit_tags
from sleep_lightning.tracking.outbox import Entry, Outbox

IMPORTED = "imported_from"
"""Tag of such a run: the file of records, or the directory, that its results come from."""
REMEDY = "remove it: MLflow does without the validations"
_NOT_LOGGED = ("val/step", "val/answers")


def lacks_run(directory: RunDirectory) -> bool:
    """Whether neither MLflow has the run nor an outbox that will be sent. Raises DamagedFile."""
    return not (directory.path / OUTBOX).exists() and directory.mlflow_run_id is None


def queue_import(
    directory: RunDirectory,
    summary: Mapping[str, Any],
    tracking: TrackingConfig,
    parent_run_id: str,
    keep: Collection[str] = (),
) -> None:
    """Write a finished run into an outbox, to be sent (``sync.send``). It appears whole: a kill leaves none of it.

    Args:
        directory: of a run that ``lacks_run``.
        summary: what its ``summary.json`` holds.
        tracking: store and experiment.
        parent_run_id: MLflow run of its sweep.
        keep: metrics as in ``metrics_of``.

    Raises:
        ValueError: a file of the directory is damaged.
        OSError: the outbox cannot be written.
    """
    experiment = directory.load_config()
    experiment.tracking = tracking
    name = tracking.run_name or directory.path.name
    partial = directory.path / f".{OUTBOX}.partial"
    partial.unlink(missing_ok=True)
    outbox = Outbox(partial, named_store(tracking.uri, tracking.experiment, name, written_names(experiment, name)))
    try:
        for entry in _entries(directory, summary, experiment.to_dict(), parent_run_id, keep):
            outbox.add(entry)
        whole = outbox.whole
    finally:
        outbox.close()
    if not whole:
        partial.unlink(missing_ok=True)
        raise OSError(f"{partial} cannot be written")
    partial.rename(directory.path / OUTBOX)


def _entries(
    directory: RunDirectory,
    summary: Mapping[str, Any],
    experiment: dict[str, Any],
    parent_run_id: str,
    keep: Collection[str],
) -> Iterator[Entry]:
    source = str(summary.get(RESTORED, directory.path))
    environment = {key: str(value) for key, value in summary.get("environment", {}).items()}
    trained = f"after it was trained in {duration(float(summary['wall_s']))}"
    note = f"Imported from {source}, {trained}: it has validations and results, no other curves."
    yield {"tags": {"mlflow.parentRunId": parent_run_id, IMPORTED: source, "mlflow.note.content": note}}
    software = {f"environment.{key}": value for key, value in environment.items()}
    yield {"tags": software | commit_tags(environment.get("git_commit", "unknown"))}
    yield {"params": flat_params({"experiment": experiment})}
    now = int(time.time() * 1000)
    for step, metrics in metrics_of(summary, HistoryFile(directory.history, REMEDY).read(), keep):
        yield {"metrics": metrics, "step": step, "time": now}
    for file in (directory.config, directory.summary):
        yield {"artifact": file.name, "folder": None}
    yield {"end": "FINISHED"}


def metrics_of(
    summary: Mapping[str, Any], history: list[dict[str, float]], keep: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, float]]]:
    """Steps and metrics, by the names under which ``fit`` logs them: each validation, then the results.

    Args:
        summary: what ``summary.json`` holds.
        history: validations.
        keep: metrics that are wanted in any case; of others, the charts of a run would be single points if no
            validation has them.
    """
    last = int(summary.get("steps", history[-1]["step"] if history else 0))
    rows = {int(row["step"]): {key if "cost/" in key else f"val/{key}": x for key, x in row.items()} for row in history}
    rows = {step: {name: x for name, x in row.items() if name not in _NOT_LOGGED} for step, row in rows.items()}
    results = {f"val/{name}": summary[name] for name in ("exact_match", "token_accuracy", "loss")}
    results["cost/train_flops"] = summary["train_flops"]
    for name in ("majority", "uniform"):
        if (baseline := summary.get(f"{name}_baseline")) is not None:
            results[f"val/{name}_exact_match"] = baseline
    wanted = {*keep, *(name for row in rows.values() for name in row)}
    logged = {"cost/wall_s": summary["wall_s"]} | summary.get("metrics", {})
    rows[last] = rows.get(last, {}) | {name: x for name, x in logged.items() if name in wanted} | results
    yield from ((step, _with_log(row)) for step, row in rows.items())


def _with_log(metrics: dict[str, float]) -> dict[str, float]:
    """With the logarithm for charts, whose axes are linear."""
    flops = metrics.get("cost/train_flops", 0)
    return metrics | ({"cost/log10_train_flops": math.log10(flops)} if flops > 0 else {})
