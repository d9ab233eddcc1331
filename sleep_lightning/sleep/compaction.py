"""Compaction, an alternative to sleep in use today: every window leaves m learned summary tokens in the context.

A window is read after the summaries of all windows before it, with m learned slots at its end; the hidden states of
the slots after the last pass are its summary. Only summaries (and fast weights, if the model has any) cross windows.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import Memory, WindowModel


def behind_summaries(
    model: WindowModel, h_BTE: Tensor, pad_BT: Tensor | None, memory: Memory, *, leaves_one: bool
) -> tuple[Tensor, Tensor | None]:
    """The window's embeddings (and pads) after the summaries so far, followed by its slots if it leaves a summary.

    Summaries of windows of pads are zeros in front of the others, and pads themselves.
    """
    m = model.summary_tokens
    if not m:
        return h_BTE, pad_BT
    (before_BSE,) = memory.summaries
    slots_BME = model.summary_slots()[: m if leaves_one else 0].to(h_BTE.dtype).expand(len(h_BTE), -1, -1)
    if pad_BT is not None:
        pad_BT = F.pad(torch.cat(((before_BSE == 0).all(-1), pad_BT), 1), (0, slots_BME.shape[1]))
    return torch.cat((before_BSE.to(h_BTE.dtype), h_BTE, slots_BME), 1), pad_BT


def leave_summary(model: WindowModel, h_BTE: Tensor, memory: Memory, pad_BT: Tensor | None = None) -> Memory:
    """Memory with the hidden states of the slots, the last m of the window, added to its summaries.

    ``pad_BT`` are the pads of the window's own tokens: where there is nothing else, there is nothing to summarise.
    """
    (before_BSE,) = memory.summaries
    slots_BME = h_BTE[:, -model.summary_tokens :].to(before_BSE.dtype)
    summaries = torch.cat((before_BSE, slots_BME), 1)
    if pad_BT is not None:
        nothing = torch.cat((torch.zeros_like(slots_BME), before_BSE), 1)
        summaries = torch.where(pad_BT.all(1)[:, None, None], nothing, summaries)
    return replace(memory, summaries=(summaries,))
