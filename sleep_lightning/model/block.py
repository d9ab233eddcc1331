"""One block of the hybrid: pre-norm mixer and SwiGLU, each on a residual branch."""

from collections.abc import Callable
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.ops import rms_norm, swiglu

P = ParamSpec("P")
T = TypeVar("T")


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last dim; under autocast in its dtype, as the projection behind it wants."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]``."""
        return rms_norm(x, self.weight, self.eps)


class SwiGLU(nn.Module):
    """``W_down (SiLU(W_gate x) * W_up x)``, ``[..., d_model] -> [..., d_model]``."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.in_splits = (d_ff, d_ff)
        self.out_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(swiglu(self.in_proj(x)))


class BlockOutput(NamedTuple):
    """Hidden states [B, T, E] (None when only the memory was asked for), the new state or cache, conv inputs."""

    h: Tensor | None
    past: Tensor | None
    conv: Tensor | None


class Block(nn.Module):
    """``h + mixer(norm(h))``, then ``h + mlp(norm(h))``. The hybrid hands a fast-weight mixer its state."""

    def __init__(self, mixer: Attention | FastWeights, d_model: int, d_ff: int, norm_eps: float) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(d_model, norm_eps)
        self.mixer = mixer
        self.mlp_norm = RMSNorm(d_model, norm_eps)
        self.mlp = SwiGLU(d_model, d_ff)

    def forward(
        self,
        h: Tensor,
        past: Tensor | None = None,
        conv: Tensor | None = None,
        present: Tensor | None = None,
        pad: Tensor | None = None,
        *,
        read: bool = True,
    ) -> BlockOutput:
        """One window.

        Args:
            h: hidden states ``[B, T, E]``.
            past: the fast weights' state, or the keys and values that attention kept (None: it keeps none).
            conv: conv inputs carried by fast weights.
            present: where the cache of attention holds a token.
            pad: neutral tokens ``[B, T]``.
            read: False computes only what is kept.
        """
        x = self.mixer_norm(h)
        if isinstance(self.mixer, Attention):
            if past is None:
                y: Tensor | None = self.mixer(x, pad)
            else:
                assert present is not None
                y, past = self.mixer.slide(x, past, present, pad, read)
        else:
            y, past, conv = self.mixer(x, past, conv, read=read, pad=pad)
        return BlockOutput(None if y is None else self.feed_forward(h + y), past, conv)

    def run(self, f: Callable[Concatenate["Block", P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``f(self, ...)``, for who walks a block otherwise: sharded weights are whole in here and in ``forward``."""
        return f(self, *args, **kwargs)

    def feed_forward(self, h: Tensor) -> Tensor:
        return h + self.mlp(self.mlp_norm(h))
