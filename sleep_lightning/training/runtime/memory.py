"""Whether a training step fits a limit of this process's memory."""

import torch

from sleep_lightning.config import Experiment
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.machine.memory import check_memory, is_limited

SMALLER = "training.checkpointing=pass, a higher training.accumulate, or a lower training.batch_size"
"""What to change where a step takes too much memory."""


def check_step(experiment: Experiment, device: torch.device) -> None:
    """Raise ValueError, with what is needed, if this process has a limit (``ulimit -v``) that a step on the CPU would
    exceed. Without a limit nothing is predicted, as that takes a moment."""
    if device.type != "cpu" or not is_limited():
        return
    with torch.random.fork_rng(devices=[]):
        step = predict_step_memory(experiment, experiment.build_model())
    if step is None:
        return
    try:
        check_memory(step)
    except ValueError as error:
        raise ValueError(f"{error}; {step / 1e9:.2f} GB of them are for a training step: try {SMALLER}") from error
