"""Which parameters belong together: those that Muon updates, and those that hold memory."""

from typing import Literal, cast

from torch import nn

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import SwiGLU
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.hybrid import HybridLM


def hidden_matrices(model: HybridLM) -> list[tuple[nn.Parameter, tuple[int, ...]]]:
    """Weights of the projections inside the blocks, with the rows of the matrices stacked in each."""
    matrices: list[tuple[nn.Parameter, tuple[int, ...]]] = []
    for owner in model.layers.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.Linear):
                rows = child.weight.shape[0]
                splits = owner.in_splits if isinstance(owner, Attention | FastWeights | SwiGLU) else (rows,)
                matrices.append((cast(nn.Parameter, child.weight), splits if name == "in_proj" else (rows,)))
    return matrices


def set_trained(model: HybridLM, train: Literal["all", "memory"]) -> None:
    """Train everything, or only the mixers that hold fast weights and the norms in front of them; the other parameters
    get no gradient, and so no update."""
    model.requires_grad_(train == "all")
    for block in model.stack:
        if not isinstance(block.mixer, Attention):
            block.mixer.requires_grad_(True)
            block.mixer_norm.requires_grad_(True)
