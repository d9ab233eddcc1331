"""Which GPU a run gets."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from sleep_lightning.runs.process import VISIBLE_GPUS, Watched


def visible_gpu(index: int) -> str:
    """The name in CUDA_VISIBLE_DEVICES of a GPU that has this index here: a scheduler may have assigned this process
    only some of the machine's."""
    ours = os.environ.get(VISIBLE_GPUS)
    return str(index) if ours is None else ours.split(",")[index].strip()


def choose_gpu(devices: Sequence[int] | None, running: Iterable[Watched]) -> str | None:
    """CUDA_VISIBLE_DEVICES of the next process: the GPU with the fewest running processes, the first of equals.

    The processes themselves are asked: one adopted from a dead supervisor keeps the GPU it was given.

    Returns:
        None without ``devices``: the process sees the same GPUs as this one.
    """
    if devices is None:
        return None
    taken = Counter(process.gpus() for process in running if process.alive())
    return min(map(visible_gpu, devices), key=lambda gpu: taken[gpu])


def check_gpus(devices: Sequence[int] | None, present: int) -> None:
    """Raises ValueError if a device is not present: its trials would train on the CPU."""
    if devices is not None and max(devices) >= present:
        raise ValueError(f"devices={list(devices)}: torch sees {present} CUDA devices here, from 0; use those, or null")
