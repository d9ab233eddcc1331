"""The matrices of a block laid out for the many windows and passes of one step (``ops.half_blocks``)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sleep_lightning.ops import SharedWeight
from sleep_lightning.ops.cpp.binding import DTYPES, usable


@dataclass
class BlockWeights:
    """What a block multiplies by inside ``HybridLM.shared_weights``; the norm in front is part of ``_in``."""

    mixer_in: SharedWeight
    mixer_out: SharedWeight
    mlp_in: SharedWeight
    mlp_out: SharedWeight
    table_VC: Tensor | None
    """In the first block, where tokens are more than words: its projections of the embeddings of all words."""

    @property
    def nbytes(self) -> int:
        """Bytes above those of the parameters, without the table."""
        return sum(w.nbytes for w in (self.mixer_in, self.mixer_out, self.mlp_in, self.mlp_out))


def shared_dtype(parameters: list[nn.Parameter]) -> torch.dtype | None:
    """In which dtype products with shared weights would be; None where there are none: off the CPU, without the C++
    kernels, for other weights than fp32, and in a compiled graph."""
    if not all(p.dtype == torch.float32 and usable(p) for p in parameters):
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    return dtype if dtype in DTYPES else None
