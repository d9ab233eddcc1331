"""The hybrid language model: nn.Modules for one device, no training framework."""

from sleep_lightning.model.config import MEMORY_MIXERS, ModelConfig
from sleep_lightning.model.hybrid import HybridLM
from sleep_lightning.model.memory import Memory

__all__ = ["MEMORY_MIXERS", "HybridLM", "Memory", "ModelConfig"]
