"""Gated DeltaNet: the fast-weight mixer (GDN as in flash-linear-attention, the paper's default).

Shape suffixes: B batch, T tokens, H heads, K key dim, V value dim, E d_model, C conv channels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleep_lightning.ops import (
    DeltaInputs,
    Layout,
    delta_inputs,
    delta_inputs_after,
    gated_delta_rule,
    gated_rms_norm,
)


class MixerOutput(NamedTuple):
    """``y`` [B, T, E] (None when only the state was asked for), state [B, H, K, V] fp32, conv inputs to carry."""

    y: Tensor | None
    state: Tensor
    conv: Tensor | None


class GatedDeltaNet(nn.Module):
    """``y, S' = GDN(x, S)``: short conv, L2-normalised q and k, gated delta rule, gated RMSNorm.

    Args:
        d_model: width of the residual stream.
        n_heads: heads H of the fast weights.
        key_dim: K per head.
        value_dim: V per head.
        conv_size: taps of the causal depthwise convolution on q, k, v; 0 for none.
        norm_eps: epsilon of the output norm.
        allow_neg_eigval: write strengths in (0, 2) instead of (0, 1).
        backend: backend of ``ops.gated_delta_rule``.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        key_dim: int,
        value_dim: int,
        conv_size: int = 4,
        norm_eps: float = 1e-6,
        allow_neg_eigval: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.n_heads, self.key_dim, self.value_dim, self.conv_size = n_heads, key_dim, value_dim, conv_size
        self.norm_eps, self.allow_neg_eigval, self.backend = norm_eps, allow_neg_eigval, backend
        keys, values = n_heads * key_dim, n_heads * value_dim
        # q, k, v side by side are the convolution's input as they come; k, v, a, b those of a pass that only writes.
        self.in_splits = (keys, keys, values, n_heads, n_heads, values)  # q, k, v, a, b, gate
        self.in_proj = nn.Linear(d_model, sum(self.in_splits), bias=False)
        if conv_size:
            self.conv_weight = nn.Parameter(torch.empty(conv_size, 2 * keys + values))  # oldest tap first; q, k, v
        self.A_log = nn.Parameter(torch.empty(n_heads))
        self.dt_bias = nn.Parameter(torch.empty(n_heads))
        self.norm_weight = nn.Parameter(torch.ones(value_dim))
        self.out_proj = nn.Linear(values, d_model, bias=False)
        self.reset_gates()

    def reset_gates(self) -> None:
        """A ~ U(0, 16), dt log-uniform in [1e-3, 1e-1], dt_bias = softplus^-1(dt); taps as nn.Conv1d's."""
        with torch.no_grad():
            self.A_log.uniform_(0, 16).clamp_(min=1e-4).log_()
            dt = torch.empty_like(self.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp_()
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
            if self.conv_size:
                self.conv_weight.uniform_(-(self.conv_size**-0.5), self.conv_size**-0.5)

    def zero_conv(self, batch_size: int) -> Tensor:
        """Conv inputs before the first token, ``[B, conv_size - 1, C]``."""
        return self.conv_weight.new_zeros(batch_size, max(self.conv_size - 1, 0), self.conv_weight.shape[1])

    def forward(
        self,
        x_BTE: Tensor,
        state: Tensor,
        conv: Tensor | None = None,
        *,
        read: bool = True,
        pad: Tensor | None = None,
    ) -> MixerOutput:
        """One window.

        Args:
            x_BTE: normed hidden states.
            state: fast weights ``[B, H, K, V]`` fp32 on entry.
            conv: conv inputs carried from the tokens before, or None to start from zeros.
            read: False computes the new state only (the dead tail of a last sleeping pass is not run).
            pad: neutral tokens ``[B, T]``: no write, no decay, zeros to the convolution.
        """
        if pad is None:
            projections, conv = self.project(x_BTE, conv, read=read)
        else:
            projections, conv = self.project(x_BTE.masked_fill(pad[..., None], 0), conv, read=read)
            g, beta = (x.masked_fill(pad[..., None], 0) for x in (projections.g, projections.beta))
            projections = projections._replace(g=g, beta=beta)
        o_BTHV, state = self.scan(projections, state, read=read)
        return MixerOutput(None if o_BTHV is None else self.read_out(o_BTHV, projections), state, conv)

    def project(self, x_BTE: Tensor, conv: Tensor | None, *, read: bool) -> tuple[DeltaInputs, Tensor | None]:
        """All that a window's tokens say before the state is looked at, and the conv inputs to carry on.

        Without ``read`` there are no queries and no output gate (``rest``), unless their conv inputs are carried.
        """
        keys, _, values, H, _, _ = self.in_splits
        whole = read or conv is not None
        layout = Layout(H, self.key_dim, self.value_dim, whole, 2 if self.allow_neg_eigval else 1)
        weight = self.in_proj.weight if whole else self.in_proj.weight[keys : 2 * keys + values + 2 * H]
        taps = None if not self.conv_size else self.conv_weight if whole else self.conv_weight[:, keys:]
        projected = F.linear(x_BTE, weight)
        if conv is None or taps is None:
            return delta_inputs(projected, taps, self.A_log, self.dt_bias, layout), conv
        return delta_inputs_after(conv, projected, taps, self.A_log, self.dt_bias, layout)

    def scan(self, p: DeltaInputs, state: Tensor, *, read: bool = True) -> tuple[Tensor | None, Tensor]:
        """The recurrence: reads ``[B, T, H, V]`` (None without read) and the state after the last token."""
        return gated_delta_rule(p.q if read else None, p.k, p.v, p.g, p.beta, state, backend=self.backend)

    def read_out(self, o_BTHV: Tensor, p: DeltaInputs) -> Tensor:
        """Gated RMSNorm of the reads and the output projection, ``[B, T, E]``."""
        assert p.rest is not None
        return self.out_proj(gated_rms_norm(o_BTHV, p.rest, self.norm_weight, self.norm_eps))
