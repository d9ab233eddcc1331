"""Gated Hebbian fast weights: a token's write does not depend on the state (Mamba-2's rule)."""

from typing import ClassVar

from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.ops import Rule, gated_hebbian


class GatedHebbian(FastWeights):
    """``S_t = a_t S_{t-1} + b_t k_t v_t^T`` (paper, Eq. 3, ``a_t, b_t`` in (0, 1) per head).

    Everything around the rule is Gated DeltaNet's (short conv, unit keys and queries, gates, gated norm; the paper says
    nothing of it), so that the rule is all that differs. Mamba-2's own block has no unit keys, ties b to a's dt and
    adds a skip; it is not this one. Shapes as in ``FastWeights``.
    """

    rule: ClassVar[Rule] = gated_hebbian
