"""The hybrid language model: nn.Modules for one device, no training framework."""

from sleep_lightning.model.config import MEMORY_MIXERS, ModelConfig
from sleep_lightning.model.flops import Flops
from sleep_lightning.model.hybrid import HybridLM
from sleep_lightning.model.memory import Memory
from sleep_lightning.model.window_model import WindowModel, why_not_window_model

__all__ = [
    "MEMORY_MIXERS",
    "Flops",
    "HybridLM",
    "Memory",
    "ModelConfig",
    "WindowModel",
    "why_not_window_model",
]
