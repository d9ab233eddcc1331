"""Causal softmax attention inside one window, or over the last L tokens (sliding).

Shape suffixes: B batch, T tokens of the window, S cached tokens, P parts (q, k, v), H heads of queries, G heads of keys
and values, D head dim, E d_model.
"""

import torch
from torch import Tensor, nn

from sleep_lightning.model.flops import Flops, products, projection
from sleep_lightning.model.norm import RMSNorm
from sleep_lightning.model.rope import RotaryEmbedding
from sleep_lightning.model.window_cache import LayerSlots
from sleep_lightning.ops import (
    QKNorm,
    cached_attention,
    grouped_attention,
    rotate,
    sliding_attention,
    window_attention,
)


class Attention(nn.Module):
    """Multi-head causal attention with RoPE; ``d_model`` in and out.

    Args:
        d_model: width of the residual stream.
        n_heads: heads of queries H.
        rope: rotary tables, of at most ``head_dim``.
        kv_heads: heads of keys and values G, a divisor of H; None: H.
        head_dim: D; None: ``d_model / n_heads``.
        bias: on queries, keys and values.
        qk_norm_eps: epsilon of an RMSNorm of queries and keys, head by head; None for none.
        norm_offset: of those norms.
        gated: the output times the sigmoid of a projection of its own.
        width: tokens that a token sees, itself among them; None: all of the window (or cache) before it.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        rope: RotaryEmbedding,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        qk_norm_eps: float | None = None,
        norm_offset: float = 0.0,
        gated: bool = False,
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.n_heads, self.kv_heads = n_heads, kv_heads or n_heads
        self.head_dim, self.gated, self.width = head_dim or d_model // n_heads, gated, width
        queries, keys = self.n_heads * self.head_dim, self.kv_heads * self.head_dim
        self.in_splits = (queries, keys, keys, *((queries,) if gated else ()))
        self.in_proj = nn.Linear(d_model, sum(self.in_splits), bias=bias)
        self.out_proj = nn.Linear(queries, d_model, bias=False)
        self.rope = rope
        self.q_norm = None if qk_norm_eps is None else RMSNorm(self.head_dim, qk_norm_eps, norm_offset)
        self.k_norm = None if qk_norm_eps is None else RMSNorm(self.head_dim, qk_norm_eps, norm_offset)

    def forward(self, x_BTE: Tensor, pad_BT: Tensor | None = None) -> Tensor:
        """``[B, T, E] -> [B, T, E]``; nothing survives the window. ``pad_BT``: tokens not attended to."""
        qkv, gate = self._project(x_BTE)
        cos_TR, sin_TR = self.rope.tables(x_BTE.shape[1])
        if pad_BT is not None:
            q_BTHD, kv_BTPGD = self._normed(qkv)
            present_BT = (~pad_BT).to(qkv.dtype)
            o = sliding_attention(q_BTHD, kv_BTPGD, kv_BTPGD[:, :0], present_BT, cos_TR, sin_TR, self.width)
        elif self._is_plain(x_BTE.shape[1]):
            o = window_attention(qkv.unflatten(-1, (3, self.n_heads, -1)), cos_TR, sin_TR, self._qk_norm())
        else:
            q, k, v = self._heads(qkv)
            o = grouped_attention(q, k, v, cos_TR, sin_TR, self._qk_norm(), self.width)
        return self._output(o, gate)

    def slide(
        self, x_BTE: Tensor, kv_BSPGD: Tensor, present_BS: Tensor, pad_BT: Tensor | None = None, read: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """Sliding-window attention: each token sees the S = L - 1 before it, those of earlier windows from a cache.

        Args:
            x_BTE: normed hidden states.
            kv_BSPGD: keys (not rotated) and values of the S tokens before ``[B, S, 2, G, D]``.
            present_BS: 1 where the cache holds a token, 0 where it is empty.
            pad_BT: tokens not attended to.
            read: False only computes the new cache.

        Returns:
            ``[B, T, E]`` (None without read), and the cache for the window after.
        """
        qkv, gate = self._project(x_BTE)
        q_BTHD, kv_BTPGD = self._normed(qkv)
        B, T, S = *x_BTE.shape[:2], kv_BSPGD.shape[1]
        kept = torch.cat((kv_BSPGD, kv_BTPGD.to(kv_BSPGD.dtype)), 1)[:, T:]
        if not read:
            return None, kept
        own_BT = present_BS.new_ones(B, T) if pad_BT is None else (~pad_BT).to(present_BS.dtype)
        present, (cos, sin) = torch.cat((present_BS, own_BT), 1), self.rope.tables(S + T)
        o = sliding_attention(q_BTHD, kv_BTPGD, kv_BSPGD.to(qkv.dtype), present, cos, sin, self.width)
        return self._output(o, gate), kept

    def extend(self, x_BTE: Tensor, slots: LayerSlots) -> Tensor:
        """The next tokens of an open window: ``[B, T, E] -> [B, T, E]``; their keys and values go into their slots."""
        qkv, gate = self._project(x_BTE)
        q, k, v = self._heads(qkv)
        if (norm := self._qk_norm()) is not None:
            q, k = norm(q, k)
        cos, sin = (slots.of_positions(table) for table in self.rope.tables(slots.stop))
        keys, values, seen = slots.write(k, rotate(k, cos, sin), v, self.width)
        return self._output(cached_attention(rotate(q, cos, sin), keys, values, seen), gate)

    def _project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries, keys and values side by side, and the gate."""
        projected: Tensor = self.in_proj(x_BTE)
        if not self.gated:
            return projected, None
        qkv, gate = projected.tensor_split((sum(self.in_splits[:3]),), -1)
        return qkv, gate

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)) for x in qkv.split(self.in_splits[:3], -1))
        return q, k, v

    def _normed(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Queries, and keys and values ``[B, T, 2, G, D]``."""
        q, k, v = self._heads(qkv)
        if (norm := self._qk_norm()) is not None:
            q, k = norm(q, k)
        return q, torch.stack((k, v), 2)

    def _is_plain(self, T: int) -> bool:
        """What ``window_attention`` can do."""
        return (
            self.kv_heads == self.n_heads and self.rope.dim == self.head_dim and (self.width is None or self.width >= T)
        )

    def _qk_norm(self) -> QKNorm | None:
        if self.q_norm is None or self.k_norm is None:
            return None
        return QKNorm(self.q_norm.factor, self.k_norm.factor, self.q_norm.eps)

    def _output(self, o_BTHD: Tensor, gate: Tensor | None) -> Tensor:
        o = o_BTHD.flatten(2)
        return self.out_proj(o if gate is None else o * gate.sigmoid())

    def flops(self, T: int, cached_tokens: int = 0, *, read: bool = True) -> Flops:
        """FLOPs of T tokens of one sequence that see ``cached_tokens`` before them; without ``read`` only the cache."""
        inputs = projection("projections", T, self.in_proj)
        if not read:
            return inputs
        attended = 4 * T * (T + cached_tokens) * self.in_splits[0]
        return inputs + products(attention=attended) + projection("projections", T, self.out_proj)
