"""Where a run is recorded."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrackingConfig:
    enabled: bool = True
    """Record the run with the loggers; false: with none of them."""
    loggers: list[Any] = field(default_factory=lambda: ["mlflow"])
    """Where to record it: mlflow, tensorboard, csv, wandb, or [{class_path: my_package.MyLogger, init_args: {...}}]."""
    uri: str = "sqlite:///mlflow.db"
    """MLflow tracking URI: a database or a server."""
    experiment: str = "sleep_lightning"
    """MLflow experiment."""
    run_name: str | None = None
    """MLflow run name; null: the name of the run directory."""
    parent_run_id: str | None = None
    """MLflow parent run (of a comparison or sweep)."""
    flush_seconds: float = 10.0
    """Seconds between two writes of buffered metrics."""

    def __post_init__(self) -> None:
        if self.flush_seconds <= 0:
            raise ValueError(f"tracking.flush_seconds={self.flush_seconds} must be above 0; try 10")
        if self.mlflow and (not self.uri or self.uri.startswith(("file:", "/", "./")) or "://" not in self.uri):
            raise ValueError(
                f"tracking.uri={self.uri!r} is not a database or server (MLflow no longer writes to plain folders); "
                f"use sqlite:///mlflow.db or http://127.0.0.1:5000"
            )

    @property
    def mlflow(self) -> bool:
        """Whether the run is recorded in MLflow."""
        return self.enabled and "mlflow" in self.loggers


def redact(uri: str) -> str:
    """The URI without its password."""
    scheme, separator, rest = uri.partition("://")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{credentials.partition(':')[0]}:***@{host}" if at and ":" in credentials else uri
