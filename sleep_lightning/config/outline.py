"""An experiment's model on the meta device: its shapes and operations, without memory, time or random numbers."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from sleep_lightning.model import WindowModel

if TYPE_CHECKING:
    from sleep_lightning.config.experiment import Experiment

KEPT = 16
_outlines: dict[str, WindowModel] = {}


def outline(experiment: "Experiment") -> WindowModel:
    """The experiment's model, to be asked for its blocks and costs; the last few are cached.

    A model whose constructor cannot run on the meta device is built on the CPU; torch's RNG stays where it was.
    """
    learning = sorted(experiment.training.trained), experiment.sleep.loop
    key = f"{experiment.model!r} {experiment.task!r} {learning}"
    if key not in _outlines:
        if len(_outlines) == KEPT:
            _outlines.clear()
        _outlines[key] = _build(experiment)
    return _outlines[key]


def _build(experiment: "Experiment") -> WindowModel:
    for where in (torch.device("meta"), nullcontext()):
        with torch.random.fork_rng(devices=[]), where:
            try:
                return experiment.build_model()
            except (NotImplementedError, RuntimeError):  # operations that need values
                if isinstance(where, nullcontext):
                    raise
    raise AssertionError
