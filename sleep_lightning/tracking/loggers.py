"""The loggers of a run, as ``tracking.loggers`` names them."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger

from sleep_lightning.config import Experiment, TrackingConfig
from sleep_lightning.config.plugins import read_spec, resolve
from sleep_lightning.redaction import redact
from sleep_lightning.runs.directory import OUTBOX, RunDirectory
from sleep_lightning.tracking.mlflow_logger import MLflowRun
from sleep_lightning.tracking.side_service import started


def open_mlflow(
    tracking: TrackingConfig,
    directory: RunDirectory,
    name: str,
    run_id: str | None,
    flush_seconds: float = TrackingConfig.flush_seconds,
    written: Mapping[str, str] | None = None,
) -> MLflowRun:
    """The MLflow run of a run, comparison or sweep, whose directory keeps its id and its outbox.

    Args:
        tracking: store and experiment.
        directory: of the run.
        name: of a new MLflow run.
        run_id: of one that is resumed; None for a new one.
        flush_seconds: time between two deliveries.
        written: as in ``MLflowRun``.

    Raises:
        ValueError: the store cannot be used, and ``tracking.required``.
    """
    return MLflowRun(
        tracking.uri,
        tracking.experiment,
        name,
        run_id,
        flush_seconds,
        directory.path / OUTBOX,
        required=tracking.required,
        opened=directory.record_mlflow_run,
        written=written,
    )


def build_loggers(experiment: Experiment, run: RunDirectory, mlflow: MLflowRun | None) -> list[Logger]:
    """All loggers of a run, in the order of ``tracking.loggers``; none if tracking is disabled.

    Those that take a ``save_dir`` write into the run directory unless ``init_args`` set another. A resumed run appends:
    TensorBoard in the same directory, CSV, which would overwrite its file, in a new version.

    Args:
        experiment: its ``tracking`` names them.
        run: the run directory.
        mlflow: the logger that ``mlflow`` names.

    Raises:
        ValueError: a logger cannot be built or, with ``tracking.required``, not started; names its key.
    """
    t = experiment.tracking
    loggers: list[Logger] = [] if mlflow is None else [mlflow]
    for i, spec in enumerate(t.loggers if t.enabled else []):
        key = f"tracking.loggers[{i}]"
        name, _ = read_spec(spec, key)
        if name == "mlflow":
            continue
        offered: dict[str, Any] = {"save_dir": str(run.path), "name": name if name in ("tensorboard", "csv") else None}
        if name == "tensorboard":
            offered["version"] = ""
        elif offered["name"] is None:
            offered["name"] = redact(t.run_name or run.path.name)
        if (logger := started(resolve("logger", spec, key=key, **offered), key, required=t.required)) is not None:
            loggers.append(logger)
    return loggers


def written_names(experiment: Experiment, name: str | None = None) -> dict[str, str]:
    """What an outbox keeps of the names of the MLflow experiment and run: as the user wrote them.

    Args:
        experiment: its ``tracking`` names them.
        name: of the run, if that is not ``tracking.run_name``.
    """
    tracking = experiment.to_dict()["tracking"]
    name = name or tracking["run_name"]
    return {"experiment": tracking["experiment"]} | ({} if name is None else {"name": name})
