"""A memory rule: the gated delta net with a learning rate that is bounded from above."""

from typing import Any

from torch import Tensor

from sleep_lightning.model.gated_delta_net import GatedDeltaNet
from sleep_lightning.ops import DeltaInputs


class Cautious(GatedDeltaNet):
    def __init__(self, *sizes: Any, bound: float = 0.5) -> None:
        super().__init__(*sizes)
        self.bound = bound

    def scan(self, p: DeltaInputs, state: Tensor, *, read: bool = True) -> tuple[Tensor | None, Tensor]:
        return super().scan(p._replace(beta=p.beta * self.bound), state, read=read)
