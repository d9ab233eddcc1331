"""Groups of parameters: those that Muon updates, those of the memory, those that learn."""

from collections.abc import Iterator
from typing import Literal, cast

from torch import nn

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import Block, SwiGLU
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.hybrid import HybridLM
from sleep_lightning.model.window_model import WindowModel

BATCH_BYTES = 64 << 20
Matrices = list[tuple[nn.Parameter, tuple[int, ...]]]


def hidden_matrices(model: WindowModel) -> Matrices:
    """Weights of the projections inside the blocks but ``gate_proj``, with the rows of the matrices stacked in each;
    without adapters, which Muon does not suit.

    Of other models than ``HybridLM``: of all ``nn.Linear`` but those with a row per token of the vocabulary (the head).
    """
    if isinstance(model, HybridLM):
        linear = _linear_weights(model.layers)
        return [(weight, _stacked(owner, name, len(weight))) for owner, name, weight in linear if name != "gate_proj"]
    assert isinstance(model, nn.Module)
    weights = (weight for _, _, weight in _linear_weights(model) if len(weight) != model.vocab_size)
    return [(weight, (len(weight),)) for weight in dict.fromkeys(weights)]


def together(rows: int, columns: int) -> int:
    """How many matrices of a shape Muon orthogonalises at a time: what it needs for them is no share of the model."""
    return max(1, BATCH_BYTES // (4 * rows * columns))


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
            linear = getattr(child, "base_layer", child)  # the projection that an adapter is on
            if isinstance(linear, nn.Linear) and name != "base_layer" and not isinstance(owner, nn.ModuleDict):
                yield owner, name, cast(nn.Parameter, linear.weight)


Trained = Literal["all", "memory", "after_prelude"]
"""What learns: everything, the memory alone, or all behind the prelude of the loop."""


def trained_parameters(model: WindowModel, train: Trained, prelude: range = range(0)) -> set[nn.Parameter]:
    """The parameters that learn.

    Args:
        model: with adapters (``model.lora``), ``all`` means the memory and them.
        train: ``memory``: the mixers that hold fast weights and the norms in front of them. ``after_prelude``: all but
            the embedding (and a head tied to it) and the blocks of the prelude.
        prelude: its blocks.

    Raises:
        ValueError: not ``all``, for a model whose parts are not known.
    """
    if not isinstance(model, HybridLM):
        if train != "all":
            raise ValueError(
                f"training.train={train} is for the hybrid model; which parameters of {type(model).__name__} hold "
                f"memory is not known: use train=all"
            )
        return set(model.parameters())
    memory = {p for block in model.stack if not isinstance(block.mixer, Attention) for p in _memory(block)}
    if train == "memory":
        return memory
    adapters = {p for name, p in model.named_parameters() if ".lora_" in name}
    learning = memory | adapters if model.config.lora else set(model.parameters())
    if model.summary_tokens:
        learning.add(model.summary)
    if train == "after_prelude":
        learning -= {model.embedding.weight, *(p for i in prelude for p in model.stack[i].parameters())}
    return learning


def _memory(block: Block) -> Iterator[nn.Parameter]:
    yield from block.mixer.parameters()
    yield from block.mixer_norm.parameters()


def set_trained(model: WindowModel, learning: set[nn.Parameter]) -> None:
    """Let these parameters learn; the others get no gradient, and so no update."""
    for p in model.parameters():
        p.requires_grad_(p in learning)
        if not p.requires_grad:
            p.grad = None  # with zeros the optimizer would go on by its momentum


def counted_parameters(model: WindowModel) -> tuple[int, int]:
    """All, and those that learn."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def frozen_blocks(model: WindowModel) -> int:
    """How many first blocks a gradient never gets to: neither they nor the embedding learn."""
    if not isinstance(model, HybridLM) or model.embedding.weight.requires_grad:
        return 0
    learning = (i for i, block in enumerate(model.stack) if any(p.requires_grad for p in block.parameters()))
    return next(learning, model.n_blocks)
