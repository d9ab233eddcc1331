"""What an outbox keeps, as requests to MLflow."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.redaction import one_line
from sleep_lightning.tracking.outbox import Entry

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def send_or_drop(client: "MlflowClient", run_id: str, entries: list[Entry], folder: Path) -> None:
    """Send; what the store refuses as invalid, and would refuse for ever, is dropped with a warning.

    Args:
        client: of the store.
        run_id: of the run.
        entries: one, or several of metrics.
        folder: what the paths of artifacts are relative to.
    """
    from mlflow.exceptions import MlflowException

    try:
        _send(client, run_id, entries, folder)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        if len(entries) == 1:
            content = next(iter(entries[0].values()))
            what = (", ".join(content) if isinstance(content, dict) else str(content))[:100]
            warnings.warn(f"MLflow rejects {what}: {one_line(error)}", stacklevel=3)
        for entry in entries if len(entries) > 1 else ():
            send_or_drop(client, run_id, [entry], folder)


def _send(client: "MlflowClient", run_id: str, entries: list[Entry], folder: Path) -> None:
    from mlflow.entities import Metric, RunTag

    first = entries[0]
    if "metrics" in first:
        metrics = [
            Metric(key, value, entry["time"], entry["step"])
            for entry in entries
            for key, value in entry["metrics"].items()
        ]
        client.log_batch(run_id, metrics=metrics)
    elif "params" in first:
        _send_params(client, run_id, first["params"])
    elif "tags" in first:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in first["tags"].items()])
    elif "dataset" in first:
        _send_dataset(client, run_id, first)
    elif "artifact" in first:
        client.log_artifact(run_id, str(folder / first["artifact"]), first["folder"])
    elif "end" in first:
        client.set_terminated(run_id, first["end"])


def _send_params(client: "MlflowClient", run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    new = [Param(key, value) for key, value in params.items() if key not in known]
    for start in range(0, len(new), 100):
        client.log_batch(run_id, params=new[start : start + 100])
    for key, value in params.items():
        if known.get(key, value) != value:
            client.set_tag(run_id, f"resumed.{key}", value)


def _send_dataset(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = InputTag("mlflow.data.context", entry["context"])
    client.log_inputs(run_id, [DatasetInput(Dataset(**entry["dataset"]), [context])])
