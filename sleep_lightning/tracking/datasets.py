"""What a run is trained on and scored with, as MLflow describes a dataset."""

import hashlib
import json

from sleep_lightning.config import Experiment
from sleep_lightning.config.plugins import import_path
from sleep_lightning.tasks import Task


def datasets_of(experiment: Experiment, task: Task) -> dict[str, dict[str, str]]:
    """The training and the validation sequences: fields of MLflow's ``Dataset`` by context.

    Two runs with the same digest draw from the same sequences, in the same order.

    Args:
        experiment: its task, seed and batch sizes.
        task: built from it.
    """
    t, written = experiment.training, experiment.to_dict()["task"]
    drawn = t.max_steps * t.batch_size
    return {
        "training": _dataset(task, written, {"split": "train", "seed": t.seed}, t.unique_sequences or drawn),
        "validation": _dataset(task, written, {"split": "validation", "seed": 0}, t.val_batches * t.val_batch_size),
    }


def _dataset(task: Task, written: dict[str, object], stream: dict[str, str | int], rows: int) -> dict[str, str]:
    whole = json.dumps([written, stream, rows], sort_keys=True)
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, task.sequence_length]}}
    schema = {part: json.dumps([{"name": name} | tensor]) for part, name in TENSORS.items()}
    source = {"mlflow.source.type": "LOCAL", "mlflow.source.name": import_path(type(task))}
    profile = {"num_rows": rows, "num_elements": rows * task.sequence_length, "vocabulary": len(task.vocab)}
    return {
        "name": str(written.get("name") or type(task).__name__),
        "digest": hashlib.sha256(whole.encode()).hexdigest()[:8],
        "source_type": "code",
        "source": json.dumps({"tags": source}),
        "schema": json.dumps({"mlflow_tensorspec": schema}),
        "profile": json.dumps(profile | stream),
    }


TENSORS = {"features": "tokens", "targets": "labels"}
"""MLflow's parts of a tensor dataset, and what they are here."""
