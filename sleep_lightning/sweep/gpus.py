"""Which GPU a trial's process gets."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from sleep_lightning.runs.process import VISIBLE_GPUS, Watched


def visible_gpu(index: int) -> str:
    """The name in CUDA_VISIBLE_DEVICES of a GPU that this process knows under an index: a scheduler may have given us
    but some of the machine's."""
    ours = os.environ.get(VISIBLE_GPUS)
    return str(index) if ours is None else ours.split(",")[index].strip()


def choose_gpu(devices: Sequence[int] | None, running: Iterable[Watched]) -> str | None:
    """The CUDA_VISIBLE_DEVICES of the next process: the GPU with the fewest of those that run, the first of equals.

    What runs is asked, not remembered: a process adopted from a dead supervisor keeps the GPU that one gave it.

    Returns:
        None without ``devices``: it sees what we see.
    """
    if devices is None:
        return None
    taken = Counter(process.gpus() for process in running if process.alive())
    return min(map(visible_gpu, devices), key=lambda gpu: taken[gpu])


def check_gpus(devices: Sequence[int] | None, present: int) -> None:
    """Raise ValueError if one of the devices is not among those present: its trials would train on the CPU."""
    if devices is not None and max(devices) >= present:
        raise ValueError(f"devices={list(devices)}: torch sees {present} CUDA devices here, from 0; use those, or null")
