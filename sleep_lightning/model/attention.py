"""Causal softmax attention inside one window, or over the last L tokens (sliding).

Shape suffixes: B batch, T tokens of the window, P q, k and v, H heads, D head dim, E d_model.
"""

import torch
from torch import Tensor, nn

from sleep_lightning.model.flops import Flops, products
from sleep_lightning.model.norm import RMSNorm
from sleep_lightning.ops import QKNorm, sliding_attention, window_attention

TABLE = 512
"""Positions in the table from the start: a compiled pass would be recompiled when the table grows."""


class RotaryEmbedding(nn.Module):
    """Tables of RoPE in the half-split form. Positions restart in every window, which is exact: RoPE is relative."""

    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        self.head_dim, self.base = head_dim, base
        self.register_buffer("cos_TD", torch.empty(0, head_dim), persistent=False)
        self.register_buffer("sin_TD", torch.empty(0, head_dim), persistent=False)
        self.tables(TABLE)

    def tables(self, T: int) -> tuple[Tensor, Tensor]:
        """cos and sin ``[T, D]``; the table grows at a window longer than all before."""
        if self.cos_TD.shape[0] < T:
            frequency = self.base ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
            angle = (torch.arange(T, dtype=torch.float64)[:, None] * frequency).repeat(1, 2).to(self.cos_TD.device)
            self.cos_TD, self.sin_TD = angle.cos().float(), angle.sin().float()
        return self.cos_TD[:T], self.sin_TD[:T]


class Attention(nn.Module):
    """Multi-head causal attention with RoPE; ``d_model`` in and out.

    Args:
        d_model: width of the residual stream.
        n_heads: heads; divides ``d_model`` into an even head dim.
        rope_base: base of the rotary frequencies.
        qk_norm_eps: epsilon of an RMSNorm of queries and keys, head by head; None for none.
    """

    def __init__(self, d_model: int, n_heads: int, rope_base: float, qk_norm_eps: float | None = None) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.in_splits = (d_model,) * 3
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        self.rope = RotaryEmbedding(d_model // n_heads, rope_base)
        self.q_norm = None if qk_norm_eps is None else RMSNorm(d_model // n_heads, qk_norm_eps)
        self.k_norm = None if qk_norm_eps is None else RMSNorm(d_model // n_heads, qk_norm_eps)

    def forward(self, x_BTE: Tensor, pad_BT: Tensor | None = None) -> Tensor:
        """``[B, T, E] -> [B, T, E]``; nothing survives the window. ``pad_BT``: tokens not attended to."""
        tables = self.rope.tables(x_BTE.shape[1])
        if pad_BT is None:
            o_BTHD = window_attention(self._project(x_BTE), *tables, self._qk_norm())
        else:
            qkv_BTPHD = self._normed_project(x_BTE)
            nothing = qkv_BTPHD[:, :0, 1:]
            present_BT = (~pad_BT).to(qkv_BTPHD.dtype)
            o_BTHD = sliding_attention(qkv_BTPHD, nothing, present_BT, *tables)
        return self.out_proj(o_BTHD.flatten(2))

    def slide(
        self, x_BTE: Tensor, kv_BSPHD: Tensor, present_BS: Tensor, pad_BT: Tensor | None = None, read: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """Sliding-window attention: each token sees the S = L - 1 before it, those of earlier windows from a cache.

        Args:
            x_BTE: normed hidden states.
            kv_BSPHD: keys (not rotated) and values of the S tokens before ``[B, S, 2, H, D]``.
            present_BS: 1 where the cache holds a token, 0 where it is empty.
            pad_BT: tokens not attended to.
            read: False only computes the new cache.

        Returns:
            ``[B, T, E]`` (None without read), and the cache for the window after.
        """
        qkv_BTPHD = self._normed_project(x_BTE)
        B, T, S = *x_BTE.shape[:2], kv_BSPHD.shape[1]
        kept = torch.cat((kv_BSPHD, qkv_BTPHD[:, :, 1:].to(kv_BSPHD.dtype)), 1)[:, T:]
        if not read:
            return None, kept
        own_BT = present_BS.new_ones(B, T) if pad_BT is None else (~pad_BT).to(present_BS.dtype)
        present = torch.cat((present_BS, own_BT), 1)
        o_BTHD = sliding_attention(qkv_BTPHD, kv_BSPHD.to(qkv_BTPHD.dtype), present, *self.rope.tables(S + T))
        return self.out_proj(o_BTHD.flatten(2)), kept

    def _project(self, x_BTE: Tensor) -> Tensor:
        qkv_BTPHD: Tensor = self.in_proj(x_BTE).unflatten(-1, (3, self.n_heads, -1))
        return qkv_BTPHD

    def _normed_project(self, x_BTE: Tensor) -> Tensor:
        norm = self._qk_norm()
        return self._project(x_BTE) if norm is None else norm(self._project(x_BTE))

    def _qk_norm(self) -> QKNorm | None:
        if self.q_norm is None or self.k_norm is None:
            return None
        return QKNorm(self.q_norm.weight, self.k_norm.weight, self.q_norm.eps)

    def flops(self, T: int, cached_tokens: int = 0, *, read: bool = True) -> Flops:
        """FLOPs of T tokens of one sequence that see ``cached_tokens`` before them; without ``read`` only the cache."""
        d = self.in_proj.in_features
        attended = 4 * T * (T + cached_tokens) * d if read else 0
        return products(projections=2 * T * d * (4 if read else 3) * d, attention=attended)
