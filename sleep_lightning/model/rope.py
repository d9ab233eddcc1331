"""Rotary position embeddings, and the ways in which pretrained models stretch them over longer contexts."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

TABLE = 512
"""Positions in the table from the start: a compiled pass would be recompiled when the table grows."""
SCALINGS: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
"""Values of ``rope_type``, with the keys that each needs."""
OPTIONAL = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "truncate")}


class RotaryEmbedding(nn.Module):
    """Tables of RoPE in the half-split form. Positions restart in every window, which is exact: RoPE is relative.

    Args:
        dim: R, the rotated dims of a head; even.
        base: base of the frequencies.
        scaling: ``model.rope_scaling``, as in the ``config.json`` of pretrained models; empty for none.
    """

    both_2TD: Tensor
    """cos, sin: one tensor, so that a thread that grows it leaves others no half of it."""

    def __init__(self, dim: int, base: float, scaling: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.dim, self._base, self._scaling = dim, base, dict(scaling or {})
        self.register_buffer("both_2TD", torch.empty(2, 0, dim), persistent=False)
        self.tables(TABLE)

    def reset(self) -> None:
        """Make the tables again, where their memory is new."""
        self.both_2TD = self.both_2TD[:, :0]
        self.tables(TABLE)

    def tables(self, T: int) -> tuple[Tensor, Tensor]:
        """cos and sin ``[T, R]`` in fp32, whatever the weights are cast to; the table grows at a window longer than all
        before."""
        both = self.both_2TD
        if both.shape[1] < T or both.dtype != torch.float32:
            # training reads it too, after an answer; a compiled pass is left as it is
            with nullcontext() if torch.compiler.is_compiling() else torch.inference_mode(False):
                self.both_2TD = both = self._made(max(T, both.shape[1]), both.device)
        cos, sin = both[:, :T].unbind()
        return cos, sin

    def _made(self, T: int, device: torch.device) -> Tensor:
        frequencies, factor = scaled_frequencies(self.dim, self._base, self._scaling)
        angle = (torch.arange(T, dtype=torch.float64)[:, None] * frequencies).repeat(1, 2).to(device)
        return factor * torch.stack((angle.cos(), angle.sin())).float()


def check_scaling(key: str, scaling: Mapping[str, Any]) -> None:
    """Raises ValueError for a ``rope_type`` that is not known, keys that it lacks or does not know, or their values."""
    if not scaling:
        return
    kind = scaling.get("rope_type")
    if kind not in SCALINGS:
        raise ValueError(
            f"{key}.rope_type={kind!r} is not known; use one of {', '.join(SCALINGS)}, or leave {key} empty"
        )
    needed, known = SCALINGS[kind], (*SCALINGS[kind], *OPTIONAL.get(kind, ()))
    missing, surplus = [k for k in needed if k not in scaling], scaling.keys() - {"rope_type", *known}
    if missing or surplus:
        what = f"lacks {', '.join(missing)}" if missing else f"does not know {', '.join(sorted(surplus))}"
        raise ValueError(f"{key} of rope_type={kind} {what}; give {', '.join(known)}")
    for name, value in scaling.items():
        if name == "rope_type" or (value is None and name not in needed):
            continue
        if name == "truncate":
            if not isinstance(value, bool):
                raise ValueError(f"{key}.truncate={value!r} must be true or false")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{key}.{name}={value!r} must be a number above 0")
    low, high = scaling.get("low_freq_factor", 0), scaling.get("high_freq_factor", math.inf)
    if low >= high:
        raise ValueError(f"{key}.low_freq_factor={low} must be below high_freq_factor={high}")


def scaled_frequencies(dim: int, base: float, scaling: Mapping[str, Any]) -> tuple[Tensor, float]:
    """The ``dim / 2`` frequencies in float64, and the factor on cos and sin.

    linear: positions divided by ``factor``. llama3: low frequencies divided, high ones kept, a ramp between.
    yarn: the same by the number of turns, with a temperature on attention (arXiv:2309.00071).
    """
    plain = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if not scaling:
        return plain, 1.0
    kind, factor = scaling["rope_type"], float(scaling["factor"])
    if kind == "linear":
        return plain / factor, 1.0
    context = scaling["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept = ((context * plain / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        return plain * (kept + (1 - kept) / factor), 1.0
    first, last = (
        dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))  # the pair that turns so often
        for turns in (scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1)
    )
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    stretched = ((torch.arange(dim // 2, dtype=torch.float64) - first) / max(last - first, 1e-3)).clamp(0, 1)
    temperature = scaling.get("attention_factor") or (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
    return plain * (1 - stretched + stretched / factor), float(temperature)
