"""From logits to the next token."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. Raises ValueError for values out of range.

    Attributes:
        temperature: 0 takes the likeliest token; else logits are divided by it.
        top_k: only the k likeliest.
        top_p: only the likeliest that together hold this probability; at least one.
        seed: of the draws; None: torch's own generator.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be from 0 (the likeliest token) up")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1, or None for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be above 0 and at most 1, or None for all tokens")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be from 0 to {2**63 - 1}, or None")

    def generator(self, device: torch.device) -> torch.Generator | None:
        """The source of a sequence of draws."""
        return None if self.seed is None else torch.Generator(device).manual_seed(self.seed)

    def draw(self, logits_V: Tensor, generator: torch.Generator | None) -> int:
        """One token of logits ``[vocab]``. Raises ValueError if they are not finite."""
        most = logits_V.max()
        if not most.isfinite():
            raise ValueError("the logits are not finite, so no token can be drawn; roll back or reset the session")
        if self.temperature == 0:
            return int(logits_V.argmax())
        p_V, token_V = ((logits_V.double() - most) / self.temperature).softmax(-1).sort(descending=True)
        if self.top_p is not None:
            p_V = p_V.masked_fill(p_V.cumsum(-1) - p_V >= self.top_p, 0)
        return int(token_V[torch.multinomial(p_V[: self.top_k], 1, generator=generator)])
