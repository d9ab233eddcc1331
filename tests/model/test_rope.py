"""The tables of RoPE, which grow while a model is used."""

import pytest
import torch

from sleep_lightning.model.rope import TABLE, RotaryEmbedding
from tests.conftest import tiny_model


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_one_that_grew_at_an_answer_serves_training(context: type[torch.inference_mode | torch.no_grad]) -> None:
    model, tokens = tiny_model(pattern="AG"), torch.zeros(1, TABLE + 1, dtype=torch.int64)
    with context():
        model.blocks(model.embed(tokens), model.zero_memory(1))
    h, _ = model.blocks(model.embed(tokens), model.zero_memory(1))
    h.sum().backward()


def test_threads_see_cosines_with_their_sines() -> None:
    """They are one tensor, which is put in place at once."""
    rope = RotaryEmbedding(8, 10000.0)
    assert [name for name, _ in rope.named_buffers()] == ["both_2TD"]
    cos, sin = rope.tables(TABLE + 1)
    assert cos.shape == sin.shape == (TABLE + 1, 8)
    torch.testing.assert_close(cos.square() + sin.square(), torch.ones_like(cos))


def test_weights_that_are_cast_do_not_take_it_with_them() -> None:
    """Else a position would turn otherwise before and after the table has grown."""
    plain, cast = RotaryEmbedding(8, 10000.0), RotaryEmbedding(8, 10000.0).bfloat16()
    for expected, x in zip(plain.tables(40), cast.tables(40), strict=True):
        assert torch.equal(x, expected)
