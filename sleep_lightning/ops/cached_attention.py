"""Softmax attention of new tokens on keys and values that are kept slot by slot, those of the new ones among them.

Shape suffixes: B batch, T new tokens, S slots, H heads of queries, G heads of keys and values, D head dim.
"""

from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops.attention import SHORT, spoil
from sleep_lightning.ops.non_finite import maybe_non_finite
from sleep_lightning.ops.transforms import on_cpu


def cached_attention(q_BTHD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, seen: Tensor | None) -> Tensor:
    """Attention on slots; queries and keys are rotated already.

    Args:
        q_BTHD: queries of the new tokens.
        k_BGSD, v_BGSD: keys and values of G heads, each for H / G consecutive heads of queries.
        seen: ``[B, T, S]`` or ``[1, T, S]`` bool, the slots that a token sees, at least one; None: all of them. What
            the others hold, NaN or infinity, does not matter.

    Returns:
        ``[B, T, H, D]`` in the dtype of the queries.
    """
    H, G = q_BTHD.shape[2], k_BGSD.shape[1]
    bad_BGS = None
    if seen is not None and maybe_non_finite(k_BGSD, v_BGSD):
        bad_BGS = ~(k_BGSD.detach().isfinite() & v_BGSD.detach().isfinite()).all(-1)
        k_BGSD, v_BGSD = (x.masked_fill(bad_BGS[..., None], 0) for x in (k_BGSD, v_BGSD))
    q, k, v = q_BTHD.transpose(1, 2), k_BGSD.to(q_BTHD.dtype), v_BGSD.to(q_BTHD.dtype)
    if q.shape[2] > SHORT or not on_cpu(q):
        mask = None if seen is None else seen[:, None]
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=H != G)
    else:
        # the heads of one group share their products: [B, G, H / G * T, S]
        scores = (q * q.shape[-1] ** -0.5).reshape(len(q), G, -1, q.shape[-1]) @ k.transpose(2, 3)
        if seen is not None:
            scores = scores.masked_fill(~seen.repeat(1, H // G, 1)[:, None], -float("inf"))
        o = (scores.softmax(-1).to(v.dtype) @ v).view_as(q)
    o_BTHD = o.transpose(1, 2)
    return o_BTHD if bad_BGS is None or seen is None else spoil(o_BTHD, seen, bad_BGS.transpose(1, 2))
