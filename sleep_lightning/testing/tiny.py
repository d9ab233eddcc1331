"""A model and a batch so small that a training step takes milliseconds."""

import torch

from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.model.jet import JetBlock
from sleep_lightning.tasks import Rule110Config, TaskBatch


def tiny_model(vocab_size: int = 3, **overrides: object) -> HybridLM:
    """A hybrid of width 16 (keys of ``ModelConfig`` change it), the same at every call.

    Gates are opened and dynamic taps randomised, so that every part of a memory rule matters from the first step.
    """
    torch.manual_seed(0)
    config = ModelConfig(**({"d_model": 16, "pattern": "AGAG", "n_heads": 2, "d_ff": 24} | overrides))  # type: ignore[arg-type]
    model = HybridLM(config, vocab_size)
    for layer in model.memory_layers:
        if layer.A_log is not None:
            torch.nn.init.constant_(layer.A_log, -2.0)
        if isinstance(layer, JetBlock):
            torch.nn.init.normal_(layer.tap_proj.weight, std=0.5)
    return model


def tiny_batch(rows: int = 4, ring: int = 6, strings: int = 3, steps: int = 1) -> TaskBatch:
    """Rule 110 with windows of ``ring`` tokens: ``strings`` of them sleep, the last one answers."""
    task = Rule110Config(ring_size=ring, n_strings=strings, steps=[steps]).build()
    return task.batch(rows, seed=0, position=0)
