"""The gated delta rule: dispatches to the first usable backend."""

from sleep_lightning.ops.dispatch import Backend, Rule, anywhere, why_not_transformed
from sleep_lightning.ops.fla import fla_backend
from sleep_lightning.ops.gated_delta_rule.chunked import chunked_gated_delta_rule
from sleep_lightning.ops.gated_delta_rule.cpp import native_gated_delta_rule, why_not_native
from sleep_lightning.ops.gated_delta_rule.flops import gated_delta_rule_flops
from sleep_lightning.ops.gated_delta_rule.reference import reference_gated_delta_rule
from sleep_lightning.ops.gated_delta_rule.triton_window import triton_gated_delta_rule, why_not_triton
from sleep_lightning.ops.non_finite import causal
from sleep_lightning.ops.one_token import delta_rule_step, why_not_step

FLA = fla_backend("gated delta rule", "gated_delta_rule", reference_gated_delta_rule)
BACKENDS: dict[str, Backend] = {
    "triton": Backend(triton_gated_delta_rule, why_not_triton),
    "fla": Backend(causal(FLA.run), FLA.why_not),
    "native": Backend(native_gated_delta_rule, why_not_native),
    "chunked": Backend(causal(chunked_gated_delta_rule), why_not_transformed),
    "reference": Backend(reference_gated_delta_rule, anywhere),
}

STEPS: dict[str, Backend] = {
    "fla_recurrent": fla_backend("gated delta rule", "gated_delta_rule", reference_gated_delta_rule, by_token=True),
    "step": Backend(delta_rule_step, why_not_step),
}

gated_delta_rule = Rule("gated_delta_rule", BACKENDS, gated_delta_rule_flops, STEPS)
"""Gated DeltaNet's rule, the paper's Eq. 3 with the delta correction. Without decay (g = 0) it is DeltaNet's."""
