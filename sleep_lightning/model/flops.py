"""FLOPs by component: matrix products, attention and memory rules (a multiply-add is 2), no elementwise work."""

from collections import Counter
from dataclasses import dataclass, field


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


def products(**forward: int) -> Flops:
    """Matrix products by component: their backward takes twice the forward."""
    return Flops(Counter(forward), Counter({name: 2 * flops for name, flops in forward.items()}))
