"""Pretrained models: read from safetensors, given memory, and written back in their own format."""

from sleep_lightning.pretrained.exporting import export
from sleep_lightning.pretrained.loading import load_pretrained, load_weights, model_values

__all__ = ["export", "load_pretrained", "load_weights", "model_values"]
