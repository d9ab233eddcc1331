"""Causal softmax attention inside one window, or over the L tokens before each of its own.

Shape suffixes: B batch, T tokens of the window, P q, k and v, H heads, D head dim, E d_model.
"""

import torch
from torch import Tensor, nn

from sleep_lightning.ops import SharedWeight, attend, sliding_attention, window_attention
from sleep_lightning.ops.attention import SHORT

TABLE = 512
"""Positions tabled from the start: a table that grew in mid-run would cost a compiled pass another graph."""


class RotaryEmbedding(nn.Module):
    """Tables of RoPE in the half-split form. Positions restart in every window: it is relative, so nothing is lost."""

    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        self.head_dim, self.base = head_dim, base
        self.register_buffer("cos_TD", torch.empty(0, head_dim), persistent=False)
        self.register_buffer("sin_TD", torch.empty(0, head_dim), persistent=False)
        self.tables(TABLE)

    def tables(self, T: int) -> tuple[Tensor, Tensor]:
        """cos and sin ``[T, D]``, grown when a longer window than any before comes by."""
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
    """

    def __init__(self, d_model: int, n_heads: int, rope_base: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.in_splits = (d_model,) * 3
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        self.rope = RotaryEmbedding(d_model // n_heads, rope_base)

    def forward(self, x_BTE: Tensor, pad_BT: Tensor | None = None) -> Tensor:
        """``[B, T, E] -> [B, T, E]``; nothing of it survives the window. ``pad_BT``: tokens not attended to."""
        if pad_BT is None:
            o_BTHD = self.attention(self.in_proj(x_BTE))
        else:
            qkv_BTPHD = self._project(x_BTE)
            nothing = qkv_BTPHD[:, :0, 1:]
            present_BT = (~pad_BT).to(qkv_BTPHD.dtype)
            o_BTHD = sliding_attention(qkv_BTPHD, nothing, present_BT, *self.rope.tables(x_BTE.shape[1]))
        return self.out_proj(o_BTHD.flatten(2))

    def attention(self, qkv_BTC: Tensor) -> Tensor:
        """Of the projection's rows ``[B, T, 3 E]`` the heads' outputs ``[B, T, H, D]``."""
        return window_attention(self._split(qkv_BTC), *self.rope.tables(qkv_BTC.shape[1]))

    @staticmethod
    def is_short(h_BTE: Tensor) -> bool:
        """Whether ``attend`` takes windows of this length."""
        return h_BTE.shape[1] <= SHORT

    def attend(self, h_BTE: Tensor, into: SharedWeight, out_of: SharedWeight, norm_eps: float) -> Tensor:
        """``h + attention(norm(h))`` with weights laid out by ``Block.share``."""
        return attend(h_BTE, into, out_of, *self.rope.tables(h_BTE.shape[1]), self.n_heads, norm_eps)

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
        qkv_BTPHD = self._project(x_BTE)
        B, T, S = *x_BTE.shape[:2], kv_BSPHD.shape[1]
        kept = torch.cat((kv_BSPHD, qkv_BTPHD[:, :, 1:].to(kv_BSPHD.dtype)), 1)[:, T:]
        if not read:
            return None, kept
        own_BT = present_BS.new_ones(B, T) if pad_BT is None else (~pad_BT).to(present_BS.dtype)
        present = torch.cat((present_BS, own_BT), 1)
        o_BTHD = sliding_attention(qkv_BTPHD, kv_BSPHD.to(qkv_BTPHD.dtype), present, *self.rope.tables(S + T))
        return self.out_proj(o_BTHD.flatten(2)), kept

    def _project(self, x_BTE: Tensor) -> Tensor:
        return self._split(self.in_proj(x_BTE))

    def _split(self, qkv_BTC: Tensor) -> Tensor:
        return qkv_BTC.unflatten(-1, (3, self.n_heads, -1))
