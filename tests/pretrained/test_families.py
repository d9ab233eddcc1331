"""Tiny random snapshots written by transformers, loaded by both: the same logits and gradients; written back to the bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sleep_lightning.model import HybridLM
from sleep_lightning.pretrained import export, load_pretrained
from sleep_lightning.sleep import SleepConfig
from tests.pretrained.snapshots import KINDS, tokens, write


def logits_of(model: HybridLM, tokens_BT: Tensor) -> Tensor:
    """Of one window that holds all tokens."""
    h, _ = model.blocks(model.embed(tokens_BT), model.zero_memory(len(tokens_BT)))
    return model.logits(h)


@pytest.mark.parametrize("T", [20, 150])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind: str, T: int, tmp_path: Path) -> None:
    theirs, ours = write(kind, tmp_path), load_pretrained(tmp_path)
    x = tokens(2, T)
    expected, actual = theirs(x).logits, logits_of(ours, x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    gradient = theirs.get_input_embeddings().weight.grad  # type: ignore[operator]
    assert ours.embedding.weight.grad is not None
    torch.testing.assert_close(ours.embedding.weight.grad, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
