"""The hybrid language model: nn.Modules for one device, no training framework."""

from sleep_lightning.model.hybrid import HybridLM, ModelConfig
from sleep_lightning.model.memory import Memory

__all__ = ["HybridLM", "Memory", "ModelConfig"]
