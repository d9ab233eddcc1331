"""From logits to the next token."""

import torch
from torch import Tensor


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raises ValueError for values out of range."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be from 0 (the likeliest token) up")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1, or None for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1, or None for all tokens")


def sample(
    logits_V: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> int:
    """One token.

    Args:
        logits_V: ``[vocab]``.
        temperature: 0 takes the likeliest token; else logits are divided by it.
        top_k: only the k likeliest.
        top_p: only the likeliest that together hold this probability; at least one.
        generator: of the device that the logits are on; None: torch's own.
    """
    if temperature == 0:
        return int(logits_V.argmax())
    p_V, token_V = (logits_V.double() / temperature).softmax(-1).sort(descending=True)
    if top_p is not None:
        p_V = p_V.masked_fill(p_V.cumsum(-1) - p_V >= top_p, 0)
    p_V = p_V[:top_k]
    return int(token_V[torch.multinomial(p_V, 1, generator=generator)])
