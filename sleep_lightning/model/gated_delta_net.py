"""Gated DeltaNet: the fast-weight mixer (GDN as in flash-linear-attention, the paper's default).

Shape suffixes: B batch, T tokens, H heads, K key dim, V value dim, E d_model, C conv channels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleep_lightning.model.dtype import at_least_fp32
from sleep_lightning.ops import gated_delta_rule, short_conv


class MixerOutput(NamedTuple):
    """``y`` [B, T, E] (None when only the state was asked for), state [B, H, K, V] fp32, conv inputs to carry."""

    y: Tensor | None
    state: Tensor
    conv: Tensor | None


class Projections(NamedTuple):
    """k, q [B, T, H, K], v [B, T, H, V], g and beta [B, T, H], gate [B, T, H V]; q and gate None in a write."""

    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor
    q: Tensor | None
    gate: Tensor | None

    def map(self, f: Callable[[Tensor], Tensor]) -> "Projections":
        """Apply ``f`` to every tensor that is there."""
        q, gate = (None if x is None else f(x) for x in (self.q, self.gate))
        return Projections(f(self.k), f(self.v), f(self.g), f(self.beta), q, gate)


def _unit(x: Tensor) -> Tensor:
    """L2-normalised over the last dim, in fp32."""
    return F.normalize(at_least_fp32(x), dim=-1).to(x.dtype)


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

    def forward(self, x_BTE: Tensor, state: Tensor, conv: Tensor | None = None, *, read: bool = True) -> MixerOutput:
        """One window.

        Args:
            x_BTE: normed hidden states.
            state: fast weights ``[B, H, K, V]`` fp32 on entry.
            conv: conv inputs carried from the tokens before, or None to start from zeros.
            read: False computes the new state only (the dead tail of a last sleeping pass is not run).
        """
        projections, conv = self.project(x_BTE, conv, read=read)
        o_BTHV, state = self.scan(projections, state)
        return MixerOutput(None if o_BTHV is None else self.read_out(o_BTHV, projections), state, conv)

    def project(self, x_BTE: Tensor, conv: Tensor | None, *, read: bool) -> tuple[Projections, Tensor | None]:
        """All that a window's tokens say before the state is looked at, and the conv inputs to carry on."""
        B, T, _ = x_BTE.shape
        keys, _, values, H, _, _ = self.in_splits
        if read or conv is not None:  # carried conv inputs include q's
            qkv, a, b, gate = self.in_proj(x_BTE).split((2 * keys + values, H, H, values), -1)
            convolved, conv = self.convolve(qkv, self.conv_weight if self.conv_size else None, conv)
            q, k, v = convolved.split((keys, keys, values), -1)
        else:
            writing = self.in_proj.weight[keys : 2 * keys + values + 2 * H]
            kv, a, b = F.linear(x_BTE, writing).split((keys + values, H, H), -1)
            convolved, _ = self.convolve(kv, self.conv_weight[:, keys:] if self.conv_size else None, None)
            k, v = convolved.split((keys, values), -1)
        return Projections(
            k=_unit(k.view(B, T, H, -1)),
            v=v.view(B, T, H, -1),
            g=-self.A_log.exp() * F.softplus(at_least_fp32(a) + self.dt_bias),
            beta=b.sigmoid() * (2 if self.allow_neg_eigval else 1),
            q=_unit(q.view(B, T, H, -1)) if read else None,
            gate=gate if read else None,
        ), conv

    def scan(self, p: Projections, state: Tensor) -> tuple[Tensor | None, Tensor]:
        """The recurrence: reads ``[B, T, H, V]`` (None without q) and the state after the last token."""
        return gated_delta_rule(p.q, p.k, p.v, p.g, p.beta, state, backend=self.backend)

    def read_out(self, o_BTHV: Tensor, p: Projections) -> Tensor:
        """Gated RMSNorm of the reads and the output projection, ``[B, T, E]``."""
        assert p.gate is not None
        normed = F.rms_norm(at_least_fp32(o_BTHV), (self.value_dim,), self.norm_weight, self.norm_eps).to(o_BTHV.dtype)
        return self.out_proj(normed.flatten(2) * F.silu(p.gate))

    def convolve(self, x_BTC: Tensor, weight: Tensor | None, carried: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """SiLU of the causal depthwise convolution, and the inputs to carry if any came in."""
        if weight is None:
            return F.silu(x_BTC), carried
        if carried is None:
            return short_conv(x_BTC, weight), None
        window = torch.cat((carried.to(x_BTC.dtype), x_BTC), 1)
        return short_conv(window, weight)[:, carried.shape[1] :], window[:, x_BTC.shape[1] :]
