"""RMSNorm with a weight."""

import torch
from torch import Tensor, nn

from sleep_lightning.ops import rms_norm


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last dim; under autocast in its dtype, for the projection that follows."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]``."""
        return rms_norm(x, self.weight, self.eps)
