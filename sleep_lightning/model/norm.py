"""RMSNorm with a weight."""

import torch
from torch import Tensor, nn

from sleep_lightning.ops import rms_norm


class RMSNorm(nn.Module):
    """``x / rms(x) * (offset + weight)`` over the last dim; under autocast in its dtype, for the projection behind it.

    Args:
        width: size of the last dim.
        eps: added to the mean square.
        offset: 1 where a pretrained model's weights are distances from 1 (Qwen3.5). The factor starts as 1.
    """

    def __init__(self, width: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    @property
    def factor(self) -> Tensor:
        """``[width]``, what is multiplied by."""
        return self.offset + self.weight if self.offset else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]``."""
        return rms_norm(x, self.factor, self.eps)
