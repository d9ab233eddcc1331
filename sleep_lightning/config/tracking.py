"""Where a run is recorded."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sleep_lightning.redaction import redact_uri, remember_uri


@dataclass
class TrackingConfig:
    enabled: bool = True
    """Record the run with the loggers; false: with none of them."""
    loggers: list[Any] = field(default_factory=lambda: ["mlflow"])
    """Where to record it: mlflow, tensorboard, csv, wandb, or [{class_path: my_package.MyLogger, init_args: {...}}]."""
    uri: str = field(default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    """MLflow tracking URI: a database or a server; by default $MLFLOW_TRACKING_URI, if that is set."""
    experiment: str = field(default_factory=lambda: os.environ.get("MLFLOW_EXPERIMENT_NAME") or "sleep_lightning")
    """MLflow experiment; by default $MLFLOW_EXPERIMENT_NAME, if that is set."""
    required: bool = True
    """Refuse to start where a logger cannot; false: train all the same (MLflow is sent later, others are left out)."""
    run_name: str | None = None
    """MLflow run name; null: the name of the run directory."""
    parent_run_id: str | None = None
    """MLflow parent run (of a comparison or sweep)."""
    system_metrics: bool = True
    """Log the use of the machine's CPU and memory and of the run's GPUs, every ten seconds."""
    checkpoint_mb: float = field(default=100.0, metadata={"low": 0, "high": 1e9})
    """Largest best checkpoint, in MB, that is copied into MLflow; 0: none is."""
    flush_seconds: float = field(default=10.0, metadata={"high": 1e6})
    """Seconds between two writes of buffered metrics."""

    def __post_init__(self) -> None:
        remember_uri(self.uri)
        if not self.experiment:
            raise ValueError("tracking.experiment is empty; name one, such as sleep_lightning")
        if self.flush_seconds <= 0:
            raise ValueError(f"tracking.flush_seconds={self.flush_seconds} must be above 0; try 10")
        if self.mlflow and (not self.uri or self.uri.startswith(("file:", "/", "./")) or "://" not in self.uri):
            raise ValueError(
                f"tracking.uri={redact_uri(self.uri)!r} is not a database or server (MLflow no longer writes to plain "
                f"folders); use sqlite:///mlflow.db or http://127.0.0.1:5000"
            )

    @property
    def mlflow(self) -> bool:
        """Whether the run is recorded in MLflow."""
        names = [one.get("class_path") if isinstance(one, Mapping) else one for one in self.loggers]
        return self.enabled and "mlflow" in names


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite URI, as SQLAlchemy reads it: ``%3F`` is a question mark. None for anything else."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if not uri.startswith("sqlite"):
        return None
    try:
        parts = make_url(uri)
    except (ArgumentError, ValueError):
        return None
    return None if parts.database in (None, "", ":memory:") else Path(parts.database)


def anchored_uri(uri: str, folder: str | Path = "") -> str:
    """The same with the absolute path of its file if it is an SQLite URI, relative to a folder or the current one."""
    from sqlalchemy.engine import make_url

    file = sqlite_file(uri)
    if file is None or file.is_absolute() or str(file).startswith("file:"):
        return uri
    return make_url(uri).set(database=str((folder / file).absolute())).render_as_string(hide_password=False)
