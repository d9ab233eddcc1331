"""Gated DeltaNet: the memory rule of the paper's Rule 110 models, and our default."""

from typing import ClassVar

from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.ops import Rule, gated_delta_rule


class GatedDeltaNet(FastWeights):
    """``S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}^T k_t)^T`` (GDN as in flash-linear-attention).

    ``a_t = exp(-exp(A_log) softplus(a + dt_bias))`` and ``b_t = sigmoid(b)`` per head; shapes as in ``FastWeights``.
    """

    rule: ClassVar[Rule] = gated_delta_rule
