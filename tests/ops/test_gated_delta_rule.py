import pytest
import torch

from sleep_lightning.ops import available_backends, gated_delta_rule, select_backend
from sleep_lightning.testing import FlaTestCase, KernelTestCase
from sleep_lightning.testing.rule_calls import make_inputs, relative_error, run_rule


class TestReference(KernelTestCase):
    backend = "reference"
    max_T = 64
    examples = 10


class TestChunked(KernelTestCase):
    backend = "chunked"

    def test_float64_equals_the_definition_to_rounding(self) -> None:
        inputs = make_inputs(2, 100, 2, 16, 8, dtype=torch.float64)
        expected, actual = run_rule("reference", inputs), run_rule("chunked", inputs)
        for name in expected:
            assert relative_error(actual[name], expected[name]) < 1e-13, name

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_a_log_decay_of_minus_infinity_in_other_dtypes(self, dtype: torch.dtype) -> None:
        inputs = make_inputs(2, 40, 2, 8, 8, dtype=dtype)
        inputs["g"][:, (0, 17, 18)] = -torch.inf
        exact = {n: x.double() for n, x in inputs.items()}
        inputs["g"] = inputs["g"].to(dtype)
        exact["g"] = inputs["g"].double()
        expected, actual = run_rule("reference", exact), run_rule("chunked", inputs)
        for name in expected:
            assert relative_error(actual[name], expected[name]) < (1e-2 if dtype == torch.float16 else 1e-12), name

    def test_gradcheck(self) -> None:
        inputs = make_inputs(1, 7, 1, 3, 2, dtype=torch.float64)
        leaves = tuple(x.requires_grad_() for x in inputs.values())
        assert torch.autograd.gradcheck(lambda *xs: gated_delta_rule(*xs, backend="chunked"), leaves)


def test_the_definition_by_hand() -> None:
    """One head, K = V = 1: S1 = b1 v1; S2 = a S1 + b2 (v2 - a S1), with unit keys."""
    one = torch.ones(1, 2, 1, 1)
    v = torch.tensor([2.0, 5.0]).view(1, 2, 1, 1)
    g = torch.log(torch.tensor([0.9, 0.5])).view(1, 2, 1)
    beta = torch.tensor([0.5, 0.25]).view(1, 2, 1)
    o, state = gated_delta_rule(one, one, v, g, beta, backend="reference")
    assert o is not None
    torch.testing.assert_close(o.flatten(), torch.tensor([1.0, 0.5 + 0.25 * (5.0 - 0.5)]))
    torch.testing.assert_close(state.flatten(), torch.tensor([1.625]))


def test_auto_takes_a_cpu_backend_on_cpu() -> None:
    k = make_inputs(1, 4, 1, 2, 2)["k"]
    assert select_backend(k) == available_backends(k)[0] != "fla"
    assert "reference" in available_backends(k)


@pytest.mark.parametrize("backend", ["fla", "flash"])
def test_a_backend_that_cannot_run_is_refused_with_the_fix(backend: str) -> None:
    inputs = make_inputs(1, 4, 1, 2, 2)
    with pytest.raises(ValueError, match=r"model\.backend='fla.*use auto"):
        gated_delta_rule(**inputs, backend=backend)


@pytest.mark.parametrize("name", ["q", "v", "g", "beta", "initial_state"])
def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    inputs = make_inputs(2, 4, 2, 3, 5)
    inputs[name] = inputs[name][:1]
    with pytest.raises(ValueError, match=rf"^{name} has shape"):
        gated_delta_rule(**inputs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestFlaChunk(FlaTestCase):
    """As the shared case has it."""
