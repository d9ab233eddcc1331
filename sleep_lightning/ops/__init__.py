"""Pure tensor functions: the operators the model is made of."""

from sleep_lightning.ops.attention import QKNorm, grouped_attention, rotate, sliding_attention, window_attention
from sleep_lightning.ops.cached_attention import cached_attention
from sleep_lightning.ops.delta_rule_inputs import DeltaInputs, Layout, delta_inputs, delta_inputs_after
from sleep_lightning.ops.dispatch import Rule
from sleep_lightning.ops.dynamic_conv import dynamic_conv
from sleep_lightning.ops.gated_delta_rule import gated_delta_rule
from sleep_lightning.ops.gated_hebbian import gated_hebbian
from sleep_lightning.ops.rms_norm import gated_rms_norm, rms_norm
from sleep_lightning.ops.short_conv import short_conv
from sleep_lightning.ops.swiglu import swiglu

__all__ = [
    "DeltaInputs",
    "Layout",
    "QKNorm",
    "Rule",
    "cached_attention",
    "delta_inputs",
    "delta_inputs_after",
    "dynamic_conv",
    "gated_delta_rule",
    "gated_hebbian",
    "gated_rms_norm",
    "grouped_attention",
    "rms_norm",
    "rotate",
    "short_conv",
    "sliding_attention",
    "swiglu",
    "window_attention",
]
