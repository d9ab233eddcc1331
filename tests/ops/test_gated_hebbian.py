import pytest
import torch

from sleep_lightning.ops import gated_hebbian
from sleep_lightning.ops.gated_hebbian.chunked import chunked_gated_hebbian
from sleep_lightning.testing import FlaTestCase, KernelTestCase
from sleep_lightning.testing.rule_calls import make_inputs
from tests.ops.chunked_cases import ChunkedTestCase


class TestReference(KernelTestCase):
    rule = gated_hebbian
    backend = "reference"
    max_T = 64
    examples = 10


class TestChunked(ChunkedTestCase):
    rule = gated_hebbian

    @pytest.mark.parametrize("chunk", [1, 7, 40, 64])
    def test_any_chunk_is_the_same(self, chunk: int) -> None:
        inputs = make_inputs(2, 40, 2, 8, 8, dtype=torch.float64)
        expected = gated_hebbian(**inputs, backend="reference")
        torch.testing.assert_close(chunked_gated_hebbian(**inputs, scale=8**-0.5, chunk=chunk), expected)


def test_the_definition_by_hand() -> None:
    """One head, K = V = 1: S1 = b1 v1; S2 = a S1 + b2 v2, with unit keys: the paper's Eq. 3."""
    one = torch.ones(1, 2, 1, 1)
    v = torch.tensor([2.0, 5.0]).view(1, 2, 1, 1)
    g = torch.log(torch.tensor([0.9, 0.5])).view(1, 2, 1)
    beta = torch.tensor([0.5, 0.25]).view(1, 2, 1)
    o, state = gated_hebbian(one, one, v, g, beta, backend="reference")
    assert o is not None
    torch.testing.assert_close(o.flatten(), torch.tensor([1.0, 0.5 + 0.25 * 5.0]))
    torch.testing.assert_close(state.flatten(), torch.tensor([1.75]))


@pytest.mark.parametrize("backend", ["fla", "native"])
def test_a_backend_that_cannot_run_is_refused_with_the_fix(backend: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.backend='{backend}'.*use auto"):
        gated_hebbian(**make_inputs(1, 4, 1, 2, 2), backend=backend)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestFlaChunk(FlaTestCase):
    rule = gated_hebbian
