"""FLOPs of the gated delta rule in chunked form, forward and backward."""

import math

from sleep_lightning.ops.chunks import chunk_length


def gated_delta_rule_flops(T: int, H: int, K: int, V: int, read: bool = True) -> tuple[int, int]:
    """Matrix products over T tokens of one sequence (the triangular solve counts C^3 / 3).

    Args:
        T: tokens.
        H: heads.
        K, V: key and value dim of a head.
        read: False for a call without queries.
    """
    C = chunk_length(T)
    chunks, rows = math.ceil(T / C), 2 if read else 1
    forward = 2 * rows * C * C * K + C**3 // 3 + 2 * rows * C * K * V + 2 * C * C * V + 2 * C * K * V
    backward = 2 * C * K * V * (2 + 2 * rows) + 2 * C * C * V * 2 + 4 * C * C * K
    if read:
        forward += 2 * C * C * V
        backward += 4 * C * C * V + 4 * C * C * K
    return H * chunks * forward, H * chunks * backward
