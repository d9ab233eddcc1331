"""FLOPs of the gated Hebbian rule in chunked form, forward and backward."""

import math

from sleep_lightning.ops.chunks import chunk_length


def gated_hebbian_flops(T: int, H: int, K: int, V: int, read: bool = True) -> tuple[int, int]:
    """Matrix products over T tokens of one sequence; arguments as in ``gated_delta_rule_flops``."""
    C = chunk_length(T)
    forward = 2 * C * K * V
    if read:
        forward += 2 * C * K * V + 2 * C * C * (K + V)
    return H * math.ceil(T / C) * forward, 2 * H * math.ceil(T / C) * forward
