"""Whether a task keeps its contract: found on one small batch of each split, before anything is trained."""

import torch
from torch import Tensor

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.task import SPLITS, Task, TaskBatch

ROWS = 16
ATTRIBUTES = ("vocab", "sequence_length", "context_length")


def why_not_task(task: Task) -> str | None:
    """What is wrong with a task, as the end of a sentence that begins with its name; None if nothing is."""
    if missing := [name for name in ATTRIBUTES if not hasattr(task, name)]:
        return f"does not set {missing[0]}; every task sets it in __init__"
    for split in SPLITS:
        batch = task.batch(ROWS, seed=0, position=0, split=split)
        if (wrong := why_not_batch(task, batch, ROWS) or why_not_labels(task, batch)) is not None:
            return f"gives, in split {split}, {wrong}"
    return None


def why_not_batch(task: Task, batch: object, rows: int) -> str | None:
    """What is wrong with the shapes, types and ranges of a batch of so many rows, or None."""
    if not isinstance(batch, TaskBatch):
        return f"a {type(batch).__name__}; sample must return a TaskBatch(tokens, labels)"
    wanted, size = (rows, task.sequence_length), len(task.vocab)
    for name, x in (("tokens", batch.tokens), ("labels", batch.labels)):
        if not isinstance(x, Tensor) or x.dtype != torch.int64:
            kind = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            return f"{name} of {kind}; they must be an int64 tensor"
        if x.shape != wanted:
            return (
                f"{name} of shape {tuple(x.shape)}; {rows} rows of sequence_length={task.sequence_length} are {wanted}"
            )
    if (outside := _outside(batch.tokens, size)) is not None:
        return f"token {outside}; with {size} in the vocab they are 0 to {size - 1}"
    if (outside := _outside(batch.labels[batch.labels != IGNORE], size)) is not None:
        return f"label {outside}; with {size} in the vocab they are 0 to {size - 1}, or {IGNORE} where there is none"
    for name, x in batch.slices.items():
        if not isinstance(x, Tensor) or len(x) != rows:
            return f"slice {name!r} for {len(x)} rows of {rows}; a slice has a value for every row"
    return None


def why_not_labels(task: Task, batch: TaskBatch) -> str | None:
    """What is wrong with the places of a batch's labels, or None."""
    spoken = batch.labels != IGNORE
    if spoken[:, : task.context_length].any():
        place = int(spoken.any(0).int().argmax())
        return (
            f"a label at token {place}, within context_length={task.context_length}; answers begin behind the context"
        )
    if not spoken.any(1).all():
        return f"a row without a label; at least one position of every row must be asked for (not {IGNORE})"
    return None


def _outside(ids: Tensor, size: int) -> int | None:
    wrong = ids[(ids < 0) | (ids >= size)]
    return int(wrong[0]) if len(wrong) else None
