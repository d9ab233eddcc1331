"""The gated Hebbian rule: dispatches to the first usable backend."""

from sleep_lightning.ops.dispatch import Backend, Rule, anywhere, why_not_transformed
from sleep_lightning.ops.fla import fla_backend
from sleep_lightning.ops.gated_hebbian.chunked import chunked_gated_hebbian
from sleep_lightning.ops.gated_hebbian.flops import gated_hebbian_flops
from sleep_lightning.ops.gated_hebbian.reference import reference_gated_hebbian
from sleep_lightning.ops.non_finite import causal
from sleep_lightning.ops.one_token import hebbian_step, why_not_step

FLA, FLA_STEP = (  # simple GLA
    fla_backend("gated hebbian", "simple_gla", reference_gated_hebbian, by_token=by_token, weighs=False)
    for by_token in (False, True)
)
BACKENDS: dict[str, Backend] = {
    "fla": Backend(causal(FLA.run), FLA.why_not),
    "chunked": Backend(causal(chunked_gated_hebbian), why_not_transformed),
    "reference": Backend(reference_gated_hebbian, anywhere),
}

STEPS: dict[str, Backend] = {
    "fla_recurrent": FLA_STEP,
    "step": Backend(hebbian_step, why_not_step),
}

gated_hebbian = Rule("gated_hebbian", BACKENDS, gated_hebbian_flops, STEPS)
"""Mamba-2's rule, the paper's Eq. 3 as printed: what is written does not depend on what the state holds."""
