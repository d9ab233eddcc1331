import pytest
import torch

from sleep_lightning.ops import gated_delta_rule
from sleep_lightning.testing import FlaTestCase, KernelTestCase
from sleep_lightning.testing.rule_calls import make_inputs
from tests.ops.chunked_cases import ChunkedTestCase


class TestReference(KernelTestCase):
    backend = "reference"
    max_T = 64
    examples = 10


class TestChunked(ChunkedTestCase):
    rule = gated_delta_rule


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
    assert gated_delta_rule.select(k) == gated_delta_rule.available(k)[0] != "fla"
    assert "reference" in gated_delta_rule.available(k)


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
