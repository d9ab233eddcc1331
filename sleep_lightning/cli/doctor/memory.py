"""Check of an experiment: the memory of its training step against what this machine has left."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sleep_lightning.cli.doctor.finding import Finding

if TYPE_CHECKING:
    import torch

    from sleep_lightning.config import Experiment

TIGHT = 0.8
"""Share of the free memory above which a step may not fit: predictions are within some 10%."""


def check_step_memory(experiment: "Experiment") -> Iterator[Finding]:
    """The predicted peak of a training step against the free memory of its device."""
    from sleep_lightning.cost.step_memory import predict_step_memory
    from sleep_lightning.training.runtime.environment import check_device
    from sleep_lightning.training.runtime.memory import SMALLER

    check, task = "experiment: memory", experiment.task.build()
    try:
        device = check_device(experiment)
    except ValueError as error:  # its sentence names the key and the fix
        found, _, remedy = str(error).rpartition("; ")
        yield Finding(check, "error", found, remedy)
        return
    free = free_memory(device)
    predicted = predict_step_memory(experiment, experiment.build_model(task).to(device))
    if predicted is None:
        yield Finding(check, "ok", f"{free / 1e9:.2f} GB free; not predicted with compile or cuda_graph")
        return
    found = f"a step is predicted to take {predicted / 1e9:.2f} GB, {free / 1e9:.2f} GB are free on {device.type}"
    if predicted > free:
        yield Finding(check, "error", found, SMALLER)
    elif predicted > TIGHT * free:
        yield Finding(check, "warning", found, f"if memory runs out: {SMALLER}")
    else:
        yield Finding(check, "ok", found)


def free_memory(device: "torch.device") -> int:
    """Bytes this process can still take on a device."""
    import psutil
    import torch

    from sleep_lightning.machine.memory import memory_left

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    left, available = memory_left(), int(psutil.virtual_memory().available)
    return available if left is None else min(left, available)
