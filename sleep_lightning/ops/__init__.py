"""Pure tensor functions: the operators the model is made of."""

from sleep_lightning.ops.gated_delta_rule import available_backends, gated_delta_rule, select_backend
from sleep_lightning.ops.short_conv import short_conv

__all__ = ["available_backends", "gated_delta_rule", "select_backend", "short_conv"]
