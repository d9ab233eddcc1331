"""The step of decoding is the rule's definition for T = 1."""

import pytest
import torch

from sleep_lightning.ops import Rule, gated_delta_rule, gated_hebbian
from sleep_lightning.testing.rule_calls import make_inputs

RULES = [gated_delta_rule, gated_hebbian]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("read", [True, False])
def test_a_step_is_the_definition(rule: Rule, dtype: torch.dtype, read: bool) -> None:
    inputs = make_inputs(3, 1, 2, 8, 5)
    state = {"g": inputs["g"], "initial_state": inputs["initial_state"]}
    inputs = {n: x.to(dtype) for n, x in inputs.items()} | (
        {n: x.double() for n, x in state.items()} if dtype == torch.float64 else state
    )
    before = inputs["initial_state"].clone()
    q = inputs.pop("q") if read else None
    inputs.pop("q", None)
    expected = rule(q, **inputs, backend="reference")
    with torch.no_grad():
        actual = rule.steps["step"].run(q, **inputs, scale=8**-0.5)  # type: ignore[call-arg]
        by_default = rule(q, **inputs)
    assert (actual[0] is None) == (not read) and actual[1].dtype == expected[1].dtype
    torch.testing.assert_close(actual, expected)
    assert torch.equal(by_default[1], actual[1])
    assert torch.equal(inputs["initial_state"], before), "the state is not written in place"


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_everything_before_a_decay_of_minus_infinity_is_forgotten(rule: Rule) -> None:
    inputs = make_inputs(1, 1, 2, 4, 4)
    inputs["g"][:] = -torch.inf
    with torch.no_grad():
        torch.testing.assert_close(rule(**inputs), rule(**inputs, backend="reference"))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_a_step_is_for_one_token_without_a_gradient(rule: Rule) -> None:
    one, two, large = (torch.empty(1, t, 2, k) for t, k in ((1, 4), (2, 4), (1, 512)))
    step = rule.steps["step"]
    assert "no backward" in str(step.why_not(one))
    with torch.no_grad():
        assert step.why_not(one) is None
        assert "one token" in str(step.why_not(two))
        assert "large" in str(step.why_not(large))
        assert "CUDA" in str(rule.steps["fla_recurrent"].why_not(one))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_a_backend_that_is_asked_for_is_taken(rule: Rule) -> None:
    """And gradients come from a backend that has them."""
    inputs = make_inputs(2, 1, 2, 4, 4)
    with torch.no_grad():
        for backend in ("reference", "chunked"):
            expected = rule.backends[backend].run(**inputs, scale=0.5)  # type: ignore[call-arg]
            assert torch.equal(rule(**inputs, scale=0.5, backend=backend)[1], expected[1])
    leaves = {n: x.requires_grad_() for n, x in inputs.items()}
    o, state = rule(**leaves)
    assert o is not None
    gradients = torch.autograd.grad(o.sum() + state.sum(), list(leaves.values()))
    assert all(g.any() for g in gradients)
