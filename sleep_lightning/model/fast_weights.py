"""The part that all memory rules share: a state written and read token by token, with projections and norms around it.

Shape suffixes: B batch, T tokens, H heads, K key dim, V value dim, E d_model, C conv channels.
"""

import math
from collections import Counter
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleep_lightning.model.flops import Flops, products
from sleep_lightning.ops import DeltaInputs, Layout, Rule, delta_inputs, delta_inputs_after, gated_rms_norm

MAX_DECAY_RATE = 16.0
"""A of the decay gates starts uniform between 0 and this, as in Mamba-2 and GDN."""


class MixerOutput(NamedTuple):
    """``y`` [B, T, E] (None when only the state was asked for), state [B, H, K, V] fp32, conv inputs to carry."""

    y: Tensor | None
    state: Tensor
    conv: Tensor | None


class FastWeights(nn.Module):
    """``y, S' = mixer(x, S)``: short conv, L2-normalised q and k, gates, a rule, gated RMSNorm.

    A subclass names its ``rule``, and overrides what differs. ``forward`` is ``project`` (of all windows at once, if
    wanted), ``scan`` (in sequence) and ``read_out`` (all at once again).

    Args:
        d_model: width of the residual stream.
        n_heads: heads H of the fast weights.
        key_dim: K per head.
        value_dim: V per head.
        conv_size: taps of the causal depthwise convolution; 0 for none.
        norm_eps: epsilon of the output norm.
        allow_neg_eigval: write strengths in (0, 2) instead of (0, 1).
        backend: backend of the rule.
        value_heads: heads of the state, a multiple of ``n_heads``: as many consecutive ones share a q and k; None: H.
    """

    rule: ClassVar[Rule]
    """The operator on the state."""
    decays: ClassVar[bool] = True
    """Whether the state decays by a gate of its own."""
    gate_parts: ClassVar[int] = 3
    """Parts of ``in_splits`` in front of the gates."""
    qk_l2norm_eps: float | None = 1e-6
    """Epsilon of the L2 norm of q and k (``Layout``); the hybrid sets its own."""

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
        value_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.n_heads, self.key_dim, self.value_dim, self.conv_size = n_heads, key_dim, value_dim, conv_size
        self.value_heads = value_heads or n_heads
        self.norm_eps, self.allow_neg_eigval, self.backend = norm_eps, allow_neg_eigval, backend
        self.in_splits = self._input_rows()
        self.in_proj = nn.Linear(d_model, sum(self.in_splits), bias=False)
        self.gate_proj: nn.Linear | None = None
        if conv_size:
            self._add_convolution(conv_size)
        self.A_log = nn.Parameter(torch.empty(self.value_heads)) if self.decays else None
        self.dt_bias = nn.Parameter(torch.empty(self.value_heads)) if self.decays else None
        self.norm_weight = nn.Parameter(torch.ones(value_dim))
        self.out_proj = nn.Linear(self.value_heads * value_dim, d_model, bias=False)
        self.reset_gates()

    def _input_rows(self) -> tuple[int, ...]:
        """Rows of ``in_proj``: q, k, v, a (if there is decay), b, gate.

        q, k, v side by side are the convolution's input as they come; k to b those of a pass that only writes.
        """
        keys, values = self.n_heads * self.key_dim, self.value_heads * self.value_dim
        return keys, keys, values, *(self.value_heads,) * self.n_gates, values

    @property
    def n_gates(self) -> int:
        """Gates of a head: a, if there is decay, and b."""
        return 2 if self.decays else 1

    @property
    def conv_channels(self) -> int:
        """C: channels whose last ``conv_size - 1`` inputs are the state of a convolution carried over windows."""
        return sum(self.in_splits[:3])

    def _add_convolution(self, taps: int) -> None:
        self.conv_weight = nn.Parameter(torch.empty(taps, self.conv_channels))  # oldest tap first; q, k, v

    def reset_gates(self) -> None:
        """A ~ U(0, MAX_DECAY_RATE), dt log-uniform in [1e-3, 1e-1], dt_bias = softplus^-1(dt); taps as nn.Conv1d's."""
        with torch.no_grad():
            if self.A_log is not None and self.dt_bias is not None:
                self.A_log.uniform_(0, MAX_DECAY_RATE).clamp_(min=1e-4).log_()
                dt = torch.empty_like(self.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp_()
                self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
            if self.conv_size:
                self._fixed_taps().uniform_(-(self.conv_size**-0.5), self.conv_size**-0.5)

    def slow_down(self, max_decay_rate: float) -> None:
        """A ~ U(0, max_decay_rate) of gates that are as ``reset_gates`` left them."""
        if self.A_log is not None:
            with torch.no_grad():
                self.A_log.add_(math.log(max_decay_rate / MAX_DECAY_RATE))

    def split_gates(self) -> None:
        """Take the rows of a and b out of ``in_proj``, into a projection of their own with a bias of b."""
        d_model, gates = self.in_proj.in_features, self.value_heads * self.n_gates
        self.in_proj = nn.Linear(d_model, self.in_proj.out_features - gates, bias=False)
        self.gate_proj = nn.Linear(d_model, gates, bias=False)
        self.write_bias = nn.Parameter(torch.zeros(self.value_heads))  # a's is dt_bias

    @property
    def matrix_rows(self) -> tuple[int, ...]:
        """Rows of the matrices that are stacked in the weight of ``in_proj``."""
        first, last = self.gate_parts, self.gate_parts + self.n_gates
        return self.in_splits if self.gate_proj is None else self.in_splits[:first] + self.in_splits[last:]

    def _fixed_taps(self) -> Tensor:
        return self.conv_weight

    def flops(self, T: int, *, read: bool = True) -> Flops | None:
        """FLOPs of T tokens of one sequence, without ``read`` those of a write; None if the rule does not say."""
        if self.rule.flops is None:
            return None
        forward, backward = self.rule.flops(T, self.value_heads, self.key_dim, self.value_dim, read)
        rule = Flops(Counter(memory_rule=forward), Counter(memory_rule=backward))
        return rule + products(projections=2 * T * self._token_weights(read))

    def _token_weights(self, read: bool) -> int:
        """Weights of the projections that a token is multiplied by."""
        keys, values = self.in_splits[0], self.in_splits[-1]  # q and the output gate, which only a read takes
        d, rows = self.in_proj.in_features, sum(self.in_splits)
        return d * (rows + values) if read else d * (rows - keys - values)

    @property
    def carried_weights(self) -> int:
        """What a write alone is multiplied by as well where the convolution's inputs are carried: rows of q, gate."""
        return self.in_proj.in_features * (self.in_splits[0] + self.in_splits[-1]) if self.conv_size else 0

    def zero_state(self, batch_size: int) -> Tensor:
        """Fast weights before the first token, ``[B, H, K, V]`` fp32."""
        dtype = torch.promote_types(self.norm_weight.dtype, torch.float32)
        return self.norm_weight.new_zeros(batch_size, self.value_heads, self.key_dim, self.value_dim, dtype=dtype)

    def zero_conv(self, batch_size: int) -> Tensor:
        """Conv inputs before the first token, ``[B, conv_size - 1, C]``."""
        return self.norm_weight.new_zeros(batch_size, max(self.conv_size - 1, 0), self.conv_channels)

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
        """Everything computed from a window's tokens before the state is read, and the conv inputs to carry.

        Without ``read`` there are no queries and no output gate (``rest``), unless their conv inputs are carried.
        """
        if conv is None or not self.conv_size:
            layout, rows, taps = self._wanted(read)
            projected = self.project_in(x_BTE, rows)
            return delta_inputs(projected, taps, self.A_log, self.dt_bias, layout), conv
        projected = self.project_in(x_BTE)
        return delta_inputs_after(conv, projected, self.conv_weight, self.A_log, self.dt_bias, self._wanted(True)[0])

    def project_in(self, x_BTE: Tensor, rows: slice | None = None) -> Tensor:
        """The fused projection ``[B, T, sum(in_splits)]``, or some of its rows, those of the gates among them."""
        before, weight = sum(self.in_splits[: self.gate_parts]), self.in_proj.weight
        if self.gate_proj is None:
            return F.linear(x_BTE, weight if rows is None else weight[rows])
        if rows is not None:  # else the weight stays whole: autocast then caches its bf16 copy
            weight, before = weight[rows], before - rows.start
        above, below = F.linear(x_BTE, weight).tensor_split((before,), -1)
        a, b = self.gate_proj(x_BTE).tensor_split((-self.value_heads,), -1)
        # outputs are joined, not weights: no backward keeps them
        return torch.cat((above, a, b + self.write_bias.to(b.dtype), below), -1)

    def _wanted(self, read: bool) -> tuple[Layout, slice | None, Tensor | None]:
        """The layout of the projection, the rows of ``in_proj`` it consists of (None: all), and its channels' taps."""
        keys, values = self.in_splits[0], self.in_splits[-1]
        layout = self._layout(self.value_dim, read)
        taps = self.conv_weight if self.conv_size else None
        if read:
            return layout, None, taps
        return layout, slice(keys, -values), None if taps is None else taps[:, keys:]

    def _layout(self, value_dim: int, read: bool) -> Layout:
        beta_scale = 2 if self.allow_neg_eigval else 1
        return Layout(self.n_heads, self.key_dim, value_dim, read, beta_scale, self.qk_l2norm_eps, self.value_heads)

    def scan(self, p: DeltaInputs, state: Tensor, *, read: bool = True) -> tuple[Tensor | None, Tensor]:
        """The recurrence: reads ``[B, T, H, V]`` (None without read) and the state after the last token."""
        return self.rule(p.q if read else None, p.k, p.v, p.g, p.beta, state, backend=self.backend)

    def read_out(self, o_BTHV: Tensor, p: DeltaInputs) -> Tensor:
        """Gated RMSNorm of the reads and the output projection, ``[B, T, E]``."""
        assert p.rest is not None
        return self.out_proj(gated_rms_norm(o_BTHV, p.rest, self.norm_weight, self.norm_eps))
