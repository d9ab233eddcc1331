"""What the chunk forms of the memory rules share: layout and decays.

Shape suffixes: N batch x heads, M chunks, C tokens of a chunk.
"""

import math

import torch
from torch import Tensor

MAX_CHUNK = 64
LEAST_LOG_DECAY = {torch.float32: -105.0, torch.float64: -746.0}
"""Log decays of which the exponential is 0: more of it would only cost digits of those summed with it."""


def chunk_length(T: int) -> int:
    """Shortest chunk that splits T tokens into as few chunks of at most ``MAX_CHUNK`` as possible (least padding)."""
    return math.ceil(T / math.ceil(T / MAX_CHUNK))


def starting_state(k: Tensor, v: Tensor, initial_state: Tensor | None) -> Tensor:
    """The state ``[B, H, K, V]`` a rule starts from, zeros if none is given: float64 for float64 keys, else float32."""
    dtype = torch.float64 if k.dtype == torch.float64 else torch.float32
    if initial_state is not None:
        return initial_state.to(dtype)
    B, _, H, K = k.shape
    return k.new_zeros(B, H, K, v.shape[-1], dtype=dtype)


def heads_first(x: Tensor, M: int, C: int, dtype: torch.dtype) -> Tensor:
    """``[B, T, H, ...]`` -> contiguous ``[B*H, M, C, ...]``, zero-padded: padded tokens change nothing."""
    B, T, H = x.shape[:3]
    out = x.new_empty(B, H, M * C, *x.shape[3:], dtype=dtype)
    out[:, :, :T] = x.transpose(1, 2)
    if M * C > T:
        out[:, :, T:] = 0
    return out.view(B * H, M, C, *x.shape[3:])


def tokens_first(x_NMC: Tensor, like: Tensor) -> Tensor:
    """``[B*H, M, C, ...]`` -> ``[B, T, H, ...]`` in the dtype of ``like``."""
    B, T, H = like.shape[:3]
    return x_NMC.reshape(B, H, -1, *like.shape[3:])[:, :, :T].transpose(1, 2).to(like.dtype)


def decays(g_NMC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``e^G`` [N,M,C], ``e^{G_C - G}`` [N,M,C] and the lower-triangular ``D`` [N,M,C,C].

    Sums run in float64, of decays no larger than need be: the difference of two running sums loses the small decays
    that follow a large one, and is NaN after -inf. Only differences <= 0 are exponentiated, so nothing overflows.
    """
    G = g_NMC.clamp(min=LEAST_LOG_DECAY[g_NMC.dtype]).double().cumsum(-1)
    C, dtype = g_NMC.shape[-1], g_NMC.dtype
    above = torch.ones(C, C, dtype=torch.bool, device=G.device).triu_(1)
    D = (G[..., :, None] - G[..., None, :]).to(dtype).masked_fill_(above, -torch.inf).exp_()
    return G.to(dtype).exp(), (G[..., -1:] - G).to(dtype).exp_(), D
