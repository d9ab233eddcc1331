"""Groups of parameters: those that Muon updates, and those of the memory."""

from collections.abc import Iterator
from typing import Literal, cast

from torch import nn

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import SwiGLU
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.hybrid import HybridLM
from sleep_lightning.model.window_model import WindowModel

Matrices = list[tuple[nn.Parameter, tuple[int, ...]]]


def hidden_matrices(model: WindowModel) -> Matrices:
    """Weights of the projections inside the blocks but ``gate_proj``, with the rows of the matrices stacked in each.

    Of other models than ``HybridLM``: of all ``nn.Linear`` but those with a row per token of the vocabulary (the head).
    """
    if isinstance(model, HybridLM):
        linear = _linear_weights(model.layers)
        return [(weight, _stacked(owner, name, len(weight))) for owner, name, weight in linear if name != "gate_proj"]
    assert isinstance(model, nn.Module)
    weights = (weight for _, _, weight in _linear_weights(model) if len(weight) != model.vocab_size)
    return [(weight, (len(weight),)) for weight in dict.fromkeys(weights)]


def vocabulary_matrices(model: WindowModel) -> list[nn.Parameter]:
    """The matrices with a row per token of the vocabulary: embeddings and head, in the order of ``parameters()``."""
    if isinstance(model, HybridLM):  # of which a projection may have as many rows by chance
        weights = {model.embedding.weight, model.head.weight}
    else:
        assert isinstance(model, nn.Module)
        weights = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
        weights |= {weight for _, _, weight in _linear_weights(model) if len(weight) == model.vocab_size}
    return [p for p in model.parameters() if p in weights]


def _stacked(owner: nn.Module, name: str, rows: int) -> tuple[int, ...]:
    if name != "in_proj" or not isinstance(owner, Attention | FastWeights | SwiGLU):
        return (rows,)
    return owner.matrix_rows if isinstance(owner, FastWeights) else owner.in_splits


def _linear_weights(root: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for owner in root.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.Linear):
                yield owner, name, cast(nn.Parameter, child.weight)


def set_trained(model: WindowModel, train: Literal["all", "memory"]) -> None:
    """Train everything, or only the mixers that hold fast weights and the norms in front of them; the other parameters
    get no gradient, and so no update.

    Raises:
        ValueError: ``memory`` for a model whose parameters of the memory are not known.
    """
    if train == "memory" and not isinstance(model, HybridLM):
        raise ValueError(
            f"training.stages: train=memory is for the hybrid model; which parameters of {type(model).__name__} hold "
            f"memory is not known: use train=all"
        )
    for p in model.parameters():
        p.requires_grad_(train == "all")
    if isinstance(model, HybridLM):
        for block in model.stack:
            if not isinstance(block.mixer, Attention):
                block.mixer.requires_grad_(True)
                block.mixer_norm.requires_grad_(True)
