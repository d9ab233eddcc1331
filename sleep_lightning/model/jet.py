"""The Jet block: Gated DeltaNet whose values pass through a convolution with taps made from the tokens (Jet-Nemotron).

Shape suffixes: B batch, T tokens, J taps, H heads, V value dim, E d_model, C = H V.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.ops import DeltaInputs, Rule, delta_inputs, dynamic_conv, gated_delta_rule

REDUCTION = 8
"""Value channels per hidden channel of the taps' generator."""


class JetBlock(FastWeights):
    """The gated delta rule; no convolution on q and k, one with generated taps on v (method 1.3).

    The taps of a token and channel are ``W_2 SiLU(W_1 x) + bias``. W_2 starts at zero, so that the convolution starts
    as the fixed one that the bias holds. W_1 is a part of ``in_proj``. Arguments and shapes as in ``FastWeights``;
    ``conv_size`` is at least 1.
    """

    rule: ClassVar[Rule] = gated_delta_rule
    gate_parts: ClassVar[int] = 2

    def _input_rows(self) -> tuple[int, ...]:
        """Rows of ``in_proj``: q, k, a, b, v, the generator's hidden channels, gate."""
        keys, values, H = self.n_heads * self.key_dim, self.value_heads * self.value_dim, self.value_heads
        return keys, keys, H, H, values, max(1, values // REDUCTION), values

    @property
    def conv_channels(self) -> int:
        """C: the values."""
        return self.value_heads * self.value_dim

    @property
    def carried_weights(self) -> int:
        """None: only values are convolved."""
        return 0

    def _add_convolution(self, taps: int) -> None:
        self.tap_proj = nn.Linear(self.in_splits[-2], taps * self.conv_channels)  # rows [J, C], oldest tap first
        nn.init.zeros_(self.tap_proj.weight)

    def _fixed_taps(self) -> Tensor:
        return self.tap_proj.bias

    def _token_weights(self, read: bool) -> int:
        return super()._token_weights(read) + self.tap_proj.in_features * self.tap_proj.out_features

    def project(self, x_BTE: Tensor, conv: Tensor | None, *, read: bool) -> tuple[DeltaInputs, Tensor | None]:
        """As in ``FastWeights``; ``conv`` holds the values' inputs ``[B, J - 1, C]``.

        Without ``read`` there are no queries and no output gate.
        """
        keys, *_, values, hidden, gate = self.in_splits
        layout = self._layout(0, read)
        projected = self.project_in(x_BTE, None if read else slice(keys, -gate))
        p = delta_inputs(projected, None, self.A_log, self.dt_bias, layout)
        assert p.rest is not None
        v_BTC, hidden_BTR, gate_BTC = p.rest.split((values, hidden, gate if read else 0), -1)
        taps_BTJC = self.tap_proj(F.silu(hidden_BTR)).unflatten(-1, (self.conv_size, values))
        v_BSC = v_BTC if conv is None else torch.cat((conv.to(v_BTC.dtype), v_BTC), 1)
        v_BTHV = dynamic_conv(v_BSC, taps_BTJC).unflatten(-1, (self.value_heads, self.value_dim))
        carried = None if conv is None else v_BSC[:, v_BTC.shape[1] :]
        return p._replace(v=v_BTHV, rest=gate_BTC if read else None), carried
