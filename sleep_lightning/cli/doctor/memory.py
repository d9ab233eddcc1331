"""Check of an experiment: the memory of its training step against what this machine has left."""

from collections.abc import Iterator

import psutil
import torch

from sleep_lightning.cli.doctor.finding import Finding
from sleep_lightning.config import Experiment
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.machine.memory import memory_left
from sleep_lightning.training.runtime.environment import check_device
from sleep_lightning.training.runtime.memory import SMALLER

CHECK = "experiment: memory"
TIGHT = 0.8
"""Share of the free memory above which a step may not fit: predictions are within some 10%."""


def check_step_memory(experiment: Experiment) -> Iterator[Finding]:
    """The predicted peak of a training step against the free memory of its device."""
    try:
        device = check_device(experiment)
    except ValueError as error:  # its sentence names the key and the fix
        found, _, remedy = str(error).rpartition("; ")
        yield Finding(CHECK, "error", found, remedy)
        return
    free, predicted = free_memory(device), predict_step_memory(experiment, experiment.build_model().to(device))
    if predicted is None:
        yield Finding(CHECK, "ok", f"{free / 1e9:.2f} GB free; not predicted with compile or cuda_graph")
        return
    found = f"a step is predicted to take {predicted / 1e9:.2f} GB, {free / 1e9:.2f} GB are free on {device.type}"
    if predicted > free:
        yield Finding(CHECK, "error", found, SMALLER)
    elif predicted > TIGHT * free:
        yield Finding(CHECK, "warning", found, f"if memory runs out: {SMALLER}")
    else:
        yield Finding(CHECK, "ok", found)


def free_memory(device: torch.device) -> int:
    """Bytes this process can still take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    left, available = memory_left(), int(psutil.virtual_memory().available)
    return available if left is None else min(left, available)
