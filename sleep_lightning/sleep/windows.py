"""How a sequence is cut: which windows sleep, and which answer."""

from typing import NamedTuple

import torch
from torch import Tensor

IGNORE = -100
"""Label of a token without loss."""
LARGE_VOCABULARY = 2**13
"""Tokens of a vocabulary from which training computes logits only where there are labels. Below, it computes all of a
window that answers: one product, which rounds alike whatever is asked."""


class Window(NamedTuple):
    """Tokens ``start:stop`` of a sequence, and whether they are slept on."""

    start: int
    stop: int
    sleeps: bool


def plan_windows(labels_BT: Tensor, window_size: int, pad_BT: Tensor | None = None) -> list[Window]:
    """Cut a batch into windows; a window sleeps if no row has a label there (Algorithm 1).

    Windows after the last label of all rows do not sleep: nothing is asked of what they hold.

    Args:
        labels_BT: -100 where there is none.
        window_size: L.
        pad_BT: neutral pads (``WindowModel.padding``), if the model knows any.

    Raises:
        ValueError: if some rows have labels in a window and others, which hold tokens and are not yet done, don't: one
            batch, one plan (``align_windows`` makes it so with neutral pads).
    """
    T = labels_BT.shape[1]
    has_label_BT = (labels_BT != IGNORE).cpu()  # one synchronisation with a GPU, not one per window
    last = int(has_label_BT.any(0).nonzero().max()) if has_label_BT.any() else T
    windows = []
    for start in range(0, T, window_size):
        stop = min(start + window_size, T)
        rows = has_label_BT[:, start:stop].any(1)
        idle = has_label_BT[:, :start].any(1) & ~has_label_BT[:, start:].any(1)  # done
        if pad_BT is not None:
            idle |= pad_BT[:, start:stop].all(1).cpu()
        if bool(rows.any()) and not bool((rows | idle).all()):
            raise ValueError(
                f"tokens {start}:{start + window_size} have labels in {int(rows.sum())} of {len(rows)} rows; "
                f"every row of a batch must have its labels in the same windows, or the task a neutral pad"
            )
        windows.append(Window(start, stop, sleeps=not bool(rows.any()) and start <= last))
    return windows


def is_answer(labels_BT: Tensor) -> Tensor:
    """Which tokens are answers and not part of a question: those after a position with a label, ``[B, T]`` bool."""
    return torch.nn.functional.pad(labels_BT[:, :-1] != IGNORE, (1, 0))
