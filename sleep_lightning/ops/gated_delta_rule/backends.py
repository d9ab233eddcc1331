"""The gated delta rule: dispatches to the first usable backend."""

from sleep_lightning.ops.dispatch import Backend, Rule, anywhere, why_not_transformed
from sleep_lightning.ops.gated_delta_rule.chunked import chunked_gated_delta_rule
from sleep_lightning.ops.gated_delta_rule.cpp import native_gated_delta_rule, why_not_native
from sleep_lightning.ops.gated_delta_rule.fla import (
    fla_gated_delta_rule,
    fla_recurrent_gated_delta_rule,
    why_not_fla_gated_delta_rule,
    why_not_fla_recurrent_gated_delta_rule,
)
from sleep_lightning.ops.gated_delta_rule.flops import gated_delta_rule_flops
from sleep_lightning.ops.gated_delta_rule.reference import reference_gated_delta_rule
from sleep_lightning.ops.gated_delta_rule.triton_window import triton_gated_delta_rule, why_not_triton
from sleep_lightning.ops.non_finite import causal
from sleep_lightning.ops.one_token import delta_rule_step, why_not_step

BACKENDS: dict[str, Backend] = {
    "triton": Backend(triton_gated_delta_rule, why_not_triton),
    "fla": Backend(causal(fla_gated_delta_rule), why_not_fla_gated_delta_rule),
    "native": Backend(native_gated_delta_rule, why_not_native),
    "chunked": Backend(causal(chunked_gated_delta_rule), why_not_transformed),
    "reference": Backend(reference_gated_delta_rule, anywhere),
}

STEPS: dict[str, Backend] = {
    "fla_recurrent": Backend(fla_recurrent_gated_delta_rule, why_not_fla_recurrent_gated_delta_rule),
    "step": Backend(delta_rule_step, why_not_step),
}

gated_delta_rule = Rule("gated_delta_rule", BACKENDS, gated_delta_rule_flops, STEPS)
"""Gated DeltaNet's rule, the paper's Eq. 3 with the delta correction. Without decay (g = 0) it is DeltaNet's."""

available_backends, select_backend = gated_delta_rule.available, gated_delta_rule.select
