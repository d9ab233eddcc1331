"""FLOPs by component: matrix products, attention and memory rules (a multiply-add is 2), no elementwise work."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from torch import nn


@dataclass(frozen=True)
class Flops:
    """FLOPs of running something once over one sequence.

    Attributes:
        forward: by component (``projections``, ``attention``, ``memory_rule``, ``mlp``, ...).
        backward: by component, without recomputation.
        mlp_recompute: the part of the forward that ``checkpointing: mlp`` recomputes in the backward.
    """

    forward: Counter[str] = field(default_factory=Counter)
    backward: Counter[str] = field(default_factory=Counter)
    mlp_recompute: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(
            self.forward + other.forward, self.backward + other.backward, self.mlp_recompute + other.mlp_recompute
        )


def projection(component: str, T: int, layer: nn.Module) -> Flops:
    """A projection of T tokens: backward for its input, and for its weight unless that is frozen; adapters with it."""
    base = cast(nn.Linear, getattr(layer, "base_layer", layer))
    adapters: Mapping[str, nn.Linear] = getattr(layer, "lora_A", {})
    forward = 2 * T * base.in_features * base.out_features
    backward = forward * (2 if base.weight.requires_grad else 1)
    for down in adapters.values():
        more = 2 * T * down.out_features * (base.in_features + base.out_features)
        forward, backward = forward + more, backward + more * (2 if down.weight.requires_grad else 1)
    return Flops(Counter({component: forward}), Counter({component: backward}))


def products(**forward: int) -> Flops:
    """Matrix products by component: their backward takes twice the forward."""
    return Flops(Counter(forward), Counter({name: 2 * flops for name, flops in forward.items()}))
