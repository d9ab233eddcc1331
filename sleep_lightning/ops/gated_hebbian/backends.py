"""The gated Hebbian rule: dispatches to the first usable backend."""

from sleep_lightning.ops.dispatch import Backend, Rule, anywhere, why_not_transformed
from sleep_lightning.ops.gated_hebbian.chunked import chunked_gated_hebbian
from sleep_lightning.ops.gated_hebbian.fla import (
    fla_gated_hebbian,
    fla_recurrent_gated_hebbian,
    why_not_fla_gated_hebbian,
    why_not_fla_recurrent_gated_hebbian,
)
from sleep_lightning.ops.gated_hebbian.flops import gated_hebbian_flops
from sleep_lightning.ops.gated_hebbian.reference import reference_gated_hebbian
from sleep_lightning.ops.non_finite import causal
from sleep_lightning.ops.one_token import hebbian_step, why_not_step

BACKENDS: dict[str, Backend] = {
    "fla": Backend(causal(fla_gated_hebbian), why_not_fla_gated_hebbian),
    "chunked": Backend(causal(chunked_gated_hebbian), why_not_transformed),
    "reference": Backend(reference_gated_hebbian, anywhere),
}

STEPS: dict[str, Backend] = {
    "fla_recurrent": Backend(fla_recurrent_gated_hebbian, why_not_fla_recurrent_gated_hebbian),
    "step": Backend(hebbian_step, why_not_step),
}

gated_hebbian = Rule("gated_hebbian", BACKENDS, gated_hebbian_flops, STEPS)
"""Mamba-2's rule, the paper's Eq. 3 as printed: what is written does not depend on what the state holds."""
