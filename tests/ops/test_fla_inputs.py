"""What flash-linear-attention's kernels are given, and what is made of their results; the kernels need CUDA."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.ops import Rule, gated_delta_rule, gated_hebbian
from sleep_lightning.testing.rule_calls import make_inputs

NAMES = {"gated_delta_rule": "chunk_gated_delta_rule", "simple_gla": "chunk_simple_gla"}


@pytest.fixture(params=NAMES)
def rule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Rule:
    """A rule whose fla kernel is the definition, but mixes tokens as a tile does: any NaN or infinity is everywhere."""
    rule = {"gated_delta_rule": gated_delta_rule, "simple_gla": gated_hebbian}[request.param]

    def kernel(*, output_final_state: bool, beta: Tensor | None = None, **inputs: Any) -> tuple[Tensor | None, Tensor]:
        beta = torch.ones_like(inputs["g"]) if beta is None else beta
        o, state = rule(**inputs, beta=beta, backend="reference")
        assert o is not None
        mixed = sum((0 * x).sum() for x in (*(inputs[n] for n in ("k", "v", "g")), beta))
        return o + mixed, state

    module = ModuleType(f"fla.ops.{request.param}")
    setattr(module, NAMES[request.param], kernel)
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return rule


def call(rule: Rule, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    o, state = rule.backends["fla"].run(**inputs, scale=0.5)  # type: ignore[call-arg]
    assert o is not None
    return o, state


def test_log_decays_of_minus_infinity(rule: Rule) -> None:
    inputs = make_inputs(2, 20, 2, 4, 4)
    inputs["g"][:, (0, 7)] = -torch.inf
    expected = rule(**inputs, scale=0.5, backend="reference")
    leaves = {n: x.requires_grad_() for n, x in inputs.items()}
    o, state = call(rule, leaves)
    torch.testing.assert_close((o, state), expected)
    (d_g,) = torch.autograd.grad(o.sum() + state.sum(), leaves["g"])
    assert d_g.isfinite().all() and not d_g[:, (0, 7)].any() and d_g[:, 1:7].all()


@pytest.mark.parametrize("name", ["k", "v", "g", "beta"])
def test_a_token_that_is_not_finite_leaves_those_before(rule: Rule, name: str) -> None:
    inputs = make_inputs(2, 20, 2, 4, 4)
    expected, _ = call(rule, inputs)
    inputs[name][1, 9, 0] = torch.nan
    o, state = call(rule, inputs)
    assert torch.equal(o[0], expected[0]) and torch.equal(o[1, :9], expected[1, :9])
    assert torch.equal(o[1, :, 1], expected[1, :, 1])  # the other head
    assert o[1, 9:, 0].isnan().all() and state[1, 0].isnan().all() and state[1, 1].isfinite().all()
