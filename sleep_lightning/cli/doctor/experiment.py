"""Checks of one experiment: its device, the kernels on its windows, the memory of its step."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sleep_lightning.cli.doctor.cgroup import memory_left
from sleep_lightning.cli.doctor.finding import Finding
from sleep_lightning.cli.doctor.kernels import judge

if TYPE_CHECKING:
    import torch

    from sleep_lightning.config import Experiment

TIGHT = 0.8
"""Share of the free memory above which a step may not fit: predictions are good to some 10%."""
SMALLER = "training.checkpointing=pass, a higher training.accumulate, or a lower training.batch_size"


def check_device_and_backends(experiment: "Experiment") -> Iterator[Finding]:
    """Where the experiment will run, and a row for each memory rule on windows and keys like its own."""
    import torch

    from sleep_lightning.model import ModelConfig
    from sleep_lightning.training.runtime.environment import check_device

    t, m = experiment.training, experiment.model
    try:
        device = check_device(experiment)
    except ValueError as error:  # its sentence names the key and the fix
        yield Finding("experiment: device", "error", *_cut_remedy(str(error)))
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    yield Finding("experiment: device", "ok", f"training.accelerator={t.accelerator} takes {name}")
    dtype = torch.bfloat16 if t.precision == "bf16" else torch.float32
    if not isinstance(m, ModelConfig):
        return
    for rule in experiment.memory_rules:
        found = judge(rule, device, dtype, m.key_dim_per_head, (experiment.sleep.window_size,), m.backend)
        yield Finding(f"experiment: {found.check}", found.state, f"{found.found} ({t.precision})", found.remedy)


def _cut_remedy(sentence: str) -> tuple[str, str]:
    found, _, remedy = sentence.rpartition("; ")
    return found, remedy


def check_step_memory(experiment: "Experiment") -> Iterator[Finding]:
    """The predicted peak of a training step against what is free."""
    import torch

    from sleep_lightning.cost.step_memory import predict_step_memory
    from sleep_lightning.training.runtime.environment import check_device

    try:
        device, task = check_device(experiment), experiment.task.build()
    except ValueError:
        return  # the row of the device says so
    free = free_memory(device)
    predicted = predict_step_memory(experiment, experiment.build_model(task).to(device))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    check = "experiment: memory"
    if predicted is None:
        yield Finding(check, "ok", f"{free / 1e9:.2f} GB free; not predicted with compile or cuda_graph")
        return
    found = f"a step is predicted to take {predicted / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
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

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    left, available = memory_left(), int(psutil.virtual_memory().available)
    return available if left is None else min(left, available)
