"""DeltaNet: the delta rule without decay."""

from typing import ClassVar

from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.ops import Rule, gated_delta_rule


class DeltaNet(FastWeights):
    """``S_t = S_{t-1} + b_t k_t (v_t - S_{t-1}^T k_t)^T``: the value of a key is replaced, nothing decays.

    It runs on the gated rule's kernels with ``g = 0`` and has no decay gate. Shapes as in ``FastWeights``.
    """

    rule: ClassVar[Rule] = gated_delta_rule
    decays: ClassVar[bool] = False
