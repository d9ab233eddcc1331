"""What a loader may give to ``SleepModule``."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from sleep_lightning.tasks import TaskBatch


def as_batch(batch: TaskBatch | Sequence[Tensor] | Mapping[str, Tensor]) -> TaskBatch:
    """A ``TaskBatch`` of what a loader gave: one, ``(tokens, labels)``, or ``{"tokens": ..., "labels": ...}``.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(batch, TaskBatch):
        return batch
    if isinstance(batch, Mapping) and {"tokens", "labels"} <= batch.keys():
        return TaskBatch(batch["tokens"], batch["labels"])
    if isinstance(batch, Sequence) and len(batch) == 2:
        return TaskBatch(batch[0], batch[1])
    raise ValueError(
        f"a batch is a {type(batch).__name__}; SleepModule takes a TaskBatch, (tokens, labels), or a mapping with "
        f"tokens and labels, int64 [B, T]"
    )
