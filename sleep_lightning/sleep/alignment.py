"""Rows of different lengths in one batch: windows that sleep and windows that answer are brought side by side.

Each row is cut into windows by itself. Rows whose plans differ are padded by whole windows of neutral pads, which leave
no trace, until all have the same plan: every row then computes what it would alone.
"""

from itertools import groupby

import torch
from torch import Tensor

from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.windows import IGNORE

Run = list[int]
"""Windows of a row that follow each other and all sleep, or all answer."""


def align_windows(tokens_BT: Tensor, labels_BT: Tensor, config: SleepConfig, neutral_pad: int | None) -> Tensor | None:
    """Where each token of a batch goes so that one plan serves all rows.

    A row's windows of nothing but pads, and those behind its last label, are left out. The last run of windows that
    answer stands beside that of the other rows, the run of windows that sleep before it likewise, and so on.

    Args:
        tokens_BT: token ids.
        labels_BT: -100 where there is none.
        config: L, and what crosses windows.
        neutral_pad: the token that the model ignores; None: rows cannot be moved.

    Returns:
        For each place of the new batch ``[B, T']`` (on the CPU) the token's old place in its row, -1 for a pad; None if
        the batch is fine as it is.

    Raises:
        ValueError: pads would come to lie inside a row, and ``config`` carries more than the memory over windows.
    """
    if neutral_pad is None:
        return None
    T, L = tokens_BT.shape[1], config.window_size
    starts = range(0, T, L)
    real_BW, asked_BW = (
        torch.stack([x[:, start : start + L].any(1) for start in starts], 1).tolist()
        for x in ((tokens_BT != neutral_pad).cpu(), (labels_BT != IGNORE).cpu())
    )
    slots = _side_by_side([_runs(real, asked) for real, asked in zip(real_BW, asked_BW, strict=True)])
    if not slots[0] or all(row == list(range(len(starts))) for row in slots):
        return None
    if config.cached_tokens or config.carry_conv_state:
        _check_no_gap(slots)
    slots_BW1 = torch.tensor(slots)[:, :, None]
    place_BWL = slots_BW1 * L + torch.arange(L)
    return place_BWL.masked_fill((slots_BW1 < 0) | (place_BWL >= T), -1).flatten(1)


def _runs(real: list[bool], asked: list[bool]) -> list[Run]:
    """A row's runs, last first: of windows that answer, that sleep, that answer, ..."""
    last = max((w for w, one in enumerate(asked) if one), default=-1)
    windows = [w for w in range(last, -1, -1) if real[w] or asked[w]]
    return [list(run)[::-1] for _, run in groupby(windows, key=lambda w: asked[w])]


def _side_by_side(rows: list[list[Run]]) -> list[Run]:
    """The windows of each row in the common order, -1 for a window of pads: before a run that sleeps, behind others."""
    slots: list[Run] = [[] for _ in rows]
    for i in reversed(range(max(map(len, rows)))):
        runs = [row[i] if i < len(row) else [] for row in rows]
        width = max(map(len, runs))
        for run, slot in zip(runs, slots, strict=True):
            pads = [-1] * (width - len(run))
            slot += pads + run if i % 2 else run + pads
    return slots


def _check_no_gap(slots: list[Run]) -> None:
    for row in slots:
        real = [i for i, w in enumerate(row) if w >= 0]
        if real and real[-1] - real[0] >= len(real):
            raise ValueError(
                "rows of one batch have questions between their windows at different places, and only the memory may "
                "cross the windows of pads that this takes: use sleep.eviction=hard and sleep.carry_conv_state=false, "
                "or micro-batches of one row"
            )
