"""Retrieval, an alternative to sleep in use today: the evicted windows most similar to the question are read again.

A window's similarity to the question is, summed over the question's tokens, the largest cosine between the token's
embedding and one of the window's ("late interaction", arXiv:2004.12832, on the model's own token embeddings). It has no
parameters of its own and no gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import WindowModel
from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.counted_flops import width_of
from sleep_lightning.sleep.windows import Window


def retrieve(
    model: WindowModel, tokens_BT: Tensor, answers_BT: Tensor | None, window: Window, config: SleepConfig
) -> Tensor | None:
    """Tokens ``[B, k * L]`` of the k windows before ``window`` most similar to its question, in their order.

    Args:
        model: whose embeddings compare tokens.
        tokens_BT: the whole batch.
        answers_BT: which of its tokens are answers, and so not part of a question.
        window: the window that asks.
        config: k and L.

    Returns:
        None without retrieval, or with nothing evicted yet. Fewer windows if there are not k. Windows of pads are
        chosen if a row has no others left, and come first.
    """
    L, n_before = config.window_size, window.start // config.window_size
    k = min(config.retrieved_windows, n_before)
    if not k:
        return None
    assert answers_BT is not None, "retrieval must know which tokens are answers"
    evicted_BWL = tokens_BT[:, : window.start].unflatten(1, (n_before, L))
    scores_BW = likeness(
        model, tokens_BT[:, window.start : window.stop], answers_BT[:, window.start : window.stop], evicted_BWL
    )
    best = scores_BW.topk(k, dim=1)
    order_Bk = (best.indices - n_before * (best.values == -torch.inf)).argsort(dim=1)
    chosen_Bk = best.indices.gather(1, order_Bk)
    return evicted_BWL.gather(1, chosen_Bk[:, :, None].expand(-1, -1, L)).flatten(1)


def likeness_flops(model: WindowModel, asking: int, before: int) -> int:
    """FLOPs of ``likeness`` over one sequence: every asking token against every one ``before`` the window."""
    return 2 * asking * before * width_of(model)


@torch.no_grad()
def likeness(model: WindowModel, asking_BT: Tensor, answers_BT: Tensor, evicted_BWL: Tensor) -> Tensor:
    """Scores ``[B, W]``: for each question token the best cosine in the window, summed over question tokens."""
    asking_BTE, evicted_BWLE = (
        F.normalize(model.embed(x.flatten(1)).float(), dim=-1).view(*x.shape, -1) for x in (asking_BT, evicted_BWL)
    )
    alike_BWTL = torch.einsum("bte,bwle->bwtl", asking_BTE, evicted_BWLE)
    if (pad_BT := model.padding(asking_BT)) is not None and (pad_BWL := model.padding(evicted_BWL)) is not None:
        answers_BT = answers_BT | pad_BT
        alike_BWTL = alike_BWTL.masked_fill(pad_BWL[:, :, None], -torch.inf)
    best_BWT = alike_BWTL.amax(-1)
    return best_BWT.masked_fill(answers_BT[:, None], 0).sum(-1)
