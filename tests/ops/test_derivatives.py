"""Derivatives beyond one backward: right, or refused in one sentence, for every operator with a backward of its own."""

import ast
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import sleep_lightning
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.ops import (
    Layout,
    QKNorm,
    Rule,
    delta_inputs,
    dynamic_conv,
    gated_delta_rule,
    gated_hebbian,
    gated_rms_norm,
    short_conv,
    swiglu,
    window_attention,
)
from sleep_lightning.ops.cpp import build
from sleep_lightning.testing.rule_calls import make_inputs

Function = Callable[..., Tensor]
B, T, H, K = 2, 5, 2, 4
LAYOUT = Layout(H, K, K, True, 1)


def run(rule: Rule, *inputs: Tensor, backend: str = "auto") -> Tensor:
    o, state = rule(*inputs, backend=backend)
    assert o is not None
    return torch.cat((o.flatten(), state.flatten()))


def rule_inputs() -> list[Tensor]:
    return list(make_inputs(B, T, H, K, K).values())


def attend(qkv: Tensor, q_weight: Tensor, k_weight: Tensor) -> Tensor:
    angle = torch.linspace(0, 3, T * K // 2, dtype=qkv.dtype).view(T, K // 2).repeat(1, 2)
    return window_attention(qkv, angle.cos(), angle.sin(), QKNorm(q_weight, k_weight, 1e-6))


def project(*inputs: Tensor) -> Tensor:
    return torch.cat([x.flatten() for x in delta_inputs(*inputs, LAYOUT) if x is not None])


def sizes(*shapes: tuple[int, ...]) -> Callable[[], list[Tensor]]:
    return lambda: [torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))) for shape in shapes]


CASES: dict[str, tuple[Function, Callable[[], list[Tensor]]]] = {
    "_ChunkedGatedDeltaRule": (partial(run, gated_delta_rule, backend="chunked"), rule_inputs),
    "_ChunkedGatedHebbian": (partial(run, gated_hebbian, backend="chunked"), rule_inputs),
    "sleep_lightning::gated_delta_rule": (partial(run, gated_delta_rule, backend="native"), rule_inputs),
    "_ShortConv": (short_conv, sizes((B, T, 3), (3, 3))),
    "_DynamicConv": (dynamic_conv, sizes((B, T + 2, 3), (B, T, 3, 3))),
    "_SwiGLU": (swiglu, sizes((B, T, 6))),
    "_RMSNorm": (lambda *x: gated_rms_norm(*x, 1e-6), sizes((B, T, H, K), (B, T, H * K), (K,))),
    "_WindowAttention": (attend, sizes((B, T, 3, H, K), (K,), (K,))),
    "_DeltaInputs": (project, sizes((B, T, sum(LAYOUT.splits) + 2 * H + 3), (3, sum(LAYOUT.splits)), (H,), (H,))),
}
ELSEWHERE = {
    "_Refuse",  # what refuses here
    "sleep_lightning::gated_delta_rule_backward",
    "sleep_lightning::window_gated_delta_rule",  # test_triton_window, in the interpreter
    "sleep_lightning::window_gated_delta_rule_backward",
}
REFUSED = r"^the .* is differentiable once by autograd's backward: take further derivatives by torch\.func"


@pytest.fixture(autouse=True)
def _built() -> None:
    if reason := build.why_not():
        pytest.skip(reason)


def test_every_operator_with_a_backward_of_its_own_is_tested() -> None:
    found = set()
    for file in Path(sleep_lightning.__file__).parent.rglob("*.py"):
        text = file.read_text()
        classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
        found |= {c.name for c in classes if any(ast.unparse(b).split(".")[-1] == "Function" for b in c.bases)}
        found |= set(re.findall(r'"(sleep_lightning::\w+)"', text))
    assert found == set(CASES) | ELSEWHERE


def leaves_of(name: str) -> list[Tensor]:
    return [x.requires_grad_() for x in CASES[name][1]()]


@pytest.mark.parametrize("name", CASES)
def test_a_second_backward_is_refused(name: str) -> None:
    """With an incoming gradient that needs none, too: a gradient without a graph would be a penalty without effect."""
    f, leaves = CASES[name][0], leaves_of(name)
    for scalar in (lambda y: y.sum(), lambda y: y.square().sum()):
        for d in torch.autograd.grad(scalar(f(*leaves)), leaves, create_graph=True):
            with pytest.raises(NotImplementedError, match=REFUSED):
                torch.autograd.grad(d.sum(), leaves, allow_unused=True)
    plain = torch.autograd.grad(f(*leaves).sum(), leaves)
    for d, expected in zip(torch.autograd.grad(f(*leaves).sum(), leaves, create_graph=True), plain, strict=True):
        assert torch.equal(d, expected)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("_")])
def test_batched_gradients_are_refused(name: str) -> None:
    f, leaves = CASES[name][0], leaves_of(name)
    y = f(*leaves)
    with pytest.raises(NotImplementedError, match="for plain tensors only"):
        torch.autograd.grad(y, leaves, torch.ones(3, *y.shape), is_grads_batched=True)


@pytest.mark.parametrize("name", ["_ChunkedGatedDeltaRule", "_ChunkedGatedHebbian", "_ShortConv", "_DynamicConv"])
def test_the_first_is_that_of_finite_differences(name: str) -> None:
    f, make = CASES[name]
    assert torch.autograd.gradcheck(f, [x.double().requires_grad_() for x in make()])


def in_plain_torch(name: str) -> Function:
    """What runs under a transform: the rules dispatch, the others choose by themselves."""
    rules = {"_ChunkedGatedHebbian": gated_hebbian, "_ChunkedGatedDeltaRule": gated_delta_rule}
    rules["sleep_lightning::gated_delta_rule"] = gated_delta_rule
    return partial(run, rules[name]) if name in rules else CASES[name][0]


def directional(f: Function, inputs: list[Tensor], tangents: list[Tensor]) -> Tensor:
    """By central differences in float64."""
    ends = [f(*(x.double() + h * t.double() for x, t in zip(inputs, tangents, strict=True))) for h in (1e-5, -1e-5)]
    return (ends[0] - ends[1]) / 2e-5


def assert_near(actual: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-2
    assert (actual.double() - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("name", CASES)
def test_transforms_have_all_derivatives(name: str) -> None:
    f, inputs = in_plain_torch(name), CASES[name][1]()
    tangents = [torch.randn_like(x, dtype=x.dtype) for x in inputs]
    expected = directional(f, inputs, tangents)
    assert_near(torch.func.jvp(f, tuple(inputs), tuple(tangents))[1], expected)
    with forward_ad.dual_level():
        y = f(*(forward_ad.make_dual(x, t) for x, t in zip(inputs, tangents, strict=True)))
        assert_near(forward_ad.unpack_dual(y).tangent, expected)

    def loss(*inputs: Tensor) -> Tensor:
        return f(*inputs).square().sum()

    gradient = torch.func.grad(loss, argnums=tuple(range(len(inputs))))
    leaves = [x.clone().requires_grad_() for x in inputs]
    for a, e in zip(gradient(*inputs), torch.autograd.grad(loss(*leaves), leaves), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5)
    twice = torch.func.jvp(torch.func.grad(loss), tuple(inputs), tuple(tangents))[1]
    assert_near(twice, directional(torch.func.grad(loss), inputs, tangents))
    batch = [torch.stack((x, x + t)) for x, t in zip(inputs, tangents, strict=True)]
    one_by_one = torch.stack([f(*xs) for xs in zip(*batch, strict=True)])
    torch.testing.assert_close(torch.func.vmap(f)(*batch), one_by_one, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", ["chunked", "native"])
def test_a_backend_without_these_derivatives_is_refused_under_a_transform(backend: str) -> None:
    inputs = rule_inputs()
    with pytest.raises(
        ValueError, match=rf"^model\.backend='{backend}' cannot run here: under torch\.func .*; use auto"
    ):
        torch.func.jvp(partial(run, gated_delta_rule, backend=backend), tuple(inputs), tuple(inputs))


@pytest.mark.parametrize("letter", "AGHDJ")
def test_forward_mode_through_a_whole_model(letter: str) -> None:
    """Every parameter at once: a derivative dropped anywhere would show."""
    torch.manual_seed(0)
    model = HybridLM(ModelConfig(d_model=16, n_heads=2, pattern=letter), 5)
    tokens = torch.randint(5, (2, 6))

    def logits(*parameters: Tensor) -> Tensor:
        named: dict[str, Any] = dict(zip(dict(model.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(_Whole(model), {f"model.{n}": p for n, p in named.items()}, (tokens,))

    inputs = [p.detach().clone() for p in model.parameters()]
    tangents = [torch.randn_like(p) for p in inputs]
    assert_near(torch.func.jvp(logits, tuple(inputs), tuple(tangents))[1], directional(logits, inputs, tangents))


class _Whole(torch.nn.Module):
    def __init__(self, model: HybridLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.logits(self.model.blocks(self.model.embed(tokens), self.model.zero_memory(len(tokens)))[0])


@pytest.mark.long
def test_a_compiled_transform_is_the_eager_one() -> None:
    """In either order: the C++ operator in a graph has no forward mode, and would give zero."""
    inputs = tuple(rule_inputs())
    f = partial(run, gated_delta_rule)
    expected = torch.func.jvp(f, inputs, inputs)[1]
    inside = torch.compile(lambda *x: torch.func.jvp(f, x, x)[1], backend="aot_eager", fullgraph=True)
    compiled = torch.compile(f, backend="aot_eager")
    compiled(*inputs)
    for actual in (inside(*inputs), torch.func.jvp(compiled, inputs, inputs)[1]):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
