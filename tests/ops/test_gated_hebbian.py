import pytest
import torch

from sleep_lightning.ops import gated_hebbian
from sleep_lightning.ops.gated_hebbian.chunked import chunked_gated_hebbian
from sleep_lightning.testing import FlaTestCase, KernelTestCase
from sleep_lightning.testing.rule_calls import make_inputs, relative_error, run_rule


class TestReference(KernelTestCase):
    rule = gated_hebbian
    backend = "reference"
    max_T = 64
    examples = 10


class TestChunked(KernelTestCase):
    rule = gated_hebbian
    backend = "chunked"

    def test_float64_equals_the_definition_to_rounding(self) -> None:
        inputs = make_inputs(2, 100, 2, 16, 8, dtype=torch.float64)
        expected, actual = (run_rule(backend, inputs, rule=self.rule) for backend in ("reference", "chunked"))
        for name in expected:
            assert relative_error(actual[name], expected[name]) < 1e-13, name

    @pytest.mark.parametrize("chunk", [1, 7, 40, 64])
    def test_any_chunk_is_the_same(self, chunk: int) -> None:
        inputs = make_inputs(2, 40, 2, 8, 8, dtype=torch.float64)
        expected = gated_hebbian(**inputs, backend="reference")
        torch.testing.assert_close(chunked_gated_hebbian(**inputs, scale=8**-0.5, chunk=chunk), expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_a_log_decay_of_minus_infinity_in_other_dtypes(self, dtype: torch.dtype) -> None:
        inputs = make_inputs(2, 40, 2, 8, 8, dtype=dtype)
        inputs["g"][:, (0, 17, 18)] = -torch.inf
        exact = {n: x.double() for n, x in inputs.items()}
        inputs["g"] = inputs["g"].to(dtype)
        exact["g"] = inputs["g"].double()
        expected, actual = run_rule("reference", exact, rule=self.rule), run_rule("chunked", inputs, rule=self.rule)
        for name in expected:
            assert relative_error(actual[name], expected[name]) < (1e-2 if dtype == torch.float16 else 1e-12), name

    def test_gradcheck(self) -> None:
        inputs = make_inputs(1, 7, 1, 3, 2, dtype=torch.float64)
        leaves = tuple(x.requires_grad_() for x in inputs.values())
        assert torch.autograd.gradcheck(lambda *xs: gated_hebbian(*xs, backend="chunked"), leaves)


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
