"""Causal softmax attention inside one window. Nothing of it survives the window.

Shape suffixes: B batch, T tokens of the window, H heads, D head dim, E d_model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleep_lightning.model.dtype import at_least_fp32

TABLE = 512
"""Positions tabled from the start: a table that grew in mid-run would cost a compiled pass another graph."""


class RotaryEmbedding(nn.Module):
    """RoPE in the half-split form. Positions restart in every window: it is relative, so nothing is lost."""

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

    def forward(self, x_BTHD: Tensor) -> Tensor:
        """Rotate queries or keys ``[B, T, H, D]``; arithmetic in fp32, result in the dtype of the input."""
        cos_TD, sin_TD = self.tables(x_BTHD.shape[1])
        x1, x2 = at_least_fp32(x_BTHD).chunk(2, -1)
        rotated = torch.cat((-x2, x1), -1)
        return (x_BTHD * cos_TD[:, None] + rotated * sin_TD[:, None]).to(x_BTHD.dtype)


SHORT = 128
"""Longest window attended by plain matrix products on CPU."""


def causal_attention(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
    """Softmax attention of a window on itself, by the faster form: on CPU, short windows as three plain products.

    ``scaled_dot_product_attention`` is built for long sequences; at T = 24 its bookkeeping costs more than the work.
    """
    T, D = q_BHTD.shape[-2:]
    if q_BHTD.device.type != "cpu" or T > SHORT:
        return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True)
    q, k, v = (x.reshape(-1, T, D) for x in (q_BHTD, k_BHTD, v_BHTD))
    above_TT = torch.full((T, T), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    scores = torch.baddbmm(above_TT, q, k.transpose(1, 2), alpha=D**-0.5)
    return torch.bmm(scores.softmax(-1), v).view_as(q_BHTD)


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

    def forward(self, x_BTE: Tensor) -> Tensor:
        """``[B, T, E] -> [B, T, E]``."""
        B, T, E = x_BTE.shape
        qkv_BTHD = self.in_proj(x_BTE).view(B, T, 3 * self.n_heads, E // self.n_heads)
        qk_BTHD, v_BTHD = qkv_BTHD.split((2 * self.n_heads, self.n_heads), 2)
        q_BHTD, k_BHTD = self.rope(qk_BTHD).transpose(1, 2).chunk(2, 1)
        o_BHTD = causal_attention(q_BHTD, k_BHTD, v_BTHD.transpose(1, 2))
        return self.out_proj(o_BHTD.transpose(1, 2).reshape(B, T, E))
