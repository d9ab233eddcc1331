"""The window kernel against the reference: compiled where there is a CUDA device, and in Triton's interpreter anywhere.

Triton reads TRITON_INTERPRET when it is imported, so the interpreted tests run in a process of their own: the first
test starts it, on this very file.
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sleep_lightning.ops import gated_delta_rule
from sleep_lightning.ops.dispatch import Kernel
from sleep_lightning.ops.gated_delta_rule import triton_window
from sleep_lightning.ops.gated_delta_rule.backends import BACKENDS
from sleep_lightning.ops.gated_delta_rule.reference import reference_gated_delta_rule
from sleep_lightning.ops.gated_delta_rule.triton_window import why_not_triton
from sleep_lightning.ops.gated_delta_rule.triton_window_ops import (
    precision,
    window_gated_delta_rule,
    window_gated_delta_rule_backward,
)
from sleep_lightning.ops.self_test import self_test
from sleep_lightning.testing import KernelTestCase
from sleep_lightning.testing.rule_calls import make_inputs, run_rule
from tests.precision import fp32_matmul

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in test_the_kernel_in_tritons_interpreter")
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="needs no interpreter")
CPU = torch.device("cpu")


@pytest.mark.process
@not_interpreted
@pytest.mark.slow
def test_the_kernel_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr


@interpreted
class TestInterpretedWindow(KernelTestCase):
    backend = "triton"
    max_T = 48  # the interpreter is slow; 64 is below, on one head
    examples = 2
    supports_bfloat16 = False


@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a CUDA device")
class TestCompiledWindow(KernelTestCase):
    device = "cuda"
    backend = "triton"
    max_T = 64


class TestCompiledWindowInTf32(TestCompiledWindow):
    tolerance = 1e-2
    agreement = 5e-3

    @pytest.fixture(autouse=True)
    def _tf32(self) -> Iterator[None]:
        with fp32_matmul("high"):
            yield


@not_interpreted
def test_half_precision_and_what_torch_may_round_is_multiplied_in_tf32() -> None:
    with fp32_matmul("highest"):
        assert [precision(x) for x in (torch.float32, torch.bfloat16, torch.float16)] == ["ieee", "tf32", "tf32"]
    with fp32_matmul("high"):
        assert precision(torch.float32) == "tf32"


def assert_elementwise(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, x in actual.items():
        largest = float(expected[name].abs().max())
        torch.testing.assert_close(
            x.double(), expected[name].double(), rtol=0, atol=tolerance * largest, msg=lambda m, n=name: f"{n}: {m}"
        )


@interpreted
@pytest.mark.parametrize(("T", "K", "V"), [(20, 72, 40), (20, 16, 80), (64, 8, 8)])
def test_several_slabs_of_keys_and_values_and_the_longest_window(T: int, K: int, V: int) -> None:
    inputs = make_inputs(1, T, 1, K, V)
    expected = run_rule("reference", {n: x.double() for n, x in inputs.items()})
    assert_elementwise(run_rule("triton", inputs), expected, 1e-6)


@interpreted
def test_float16() -> None:
    inputs = make_inputs(1, 20, 2, 16, 16, dtype=torch.float16)
    actual = run_rule("triton", inputs)
    assert {n: x.dtype for n, x in actual.items()} == {
        "o": torch.float16,
        "final_state": torch.float32,
        **{f"d_{n}": x.dtype for n, x in inputs.items()},
    }
    assert_elementwise(actual, run_rule("reference", {n: x.double() for n, x in inputs.items()}), 2e-3)


@interpreted
def test_views_of_one_projection_are_read_in_place() -> None:
    """q, k, v as the model cuts them from one matrix, gates heads first, and the gradient of a sum (all strides 0)."""
    inputs = make_inputs(1, 20, 2, 8, 8)
    packed = torch.cat([inputs[n] for n in ("q", "k", "v")], -1)
    views = dict(zip(("q", "k", "v"), packed.split(8, -1), strict=True))
    views |= {n: inputs[n].transpose(1, 2).contiguous().transpose(1, 2) for n in ("g", "beta")}
    views["initial_state"] = inputs["initial_state"].transpose(2, 3).contiguous().transpose(2, 3)
    assert not any(x.is_contiguous() for x in views.values())

    def gradients(inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        leaves = {n: x.detach().requires_grad_() for n, x in inputs.items()}
        o, state = gated_delta_rule(**leaves, backend=backend)
        assert o is not None
        return dict(zip(leaves, torch.autograd.grad(o.sum() + state.sum(), list(leaves.values())), strict=True))

    assert_elementwise(gradients(views, "triton"), gradients(inputs, "reference"), 1e-5)


@interpreted
def test_torch_compile_sees_one_graph() -> None:
    inputs = make_inputs(1, 5, 1, 8, 8)
    triton_window._cached_verdict.cache_clear()  # so that tracing meets the self-test too
    compiled = torch.compile(gated_delta_rule, fullgraph=True, backend="aot_eager")
    results = []
    for f in (gated_delta_rule, compiled):
        leaves = {n: x.clone().requires_grad_() for n, x in inputs.items()}
        o, state = f(**leaves, backend="triton")
        results.append((o, state, *torch.autograd.grad(o.sum() + state.square().sum(), list(leaves.values()))))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@interpreted
@pytest.mark.parametrize("read", [True, False])
def test_operators_are_well_formed(read: bool) -> None:
    q, *others = make_inputs(1, 3, 1, 4, 4).values()
    inputs = (q if read else None, *others)
    o, final_state, *saved = window_gated_delta_rule(*inputs, 0.5)
    q_, k, v, g, beta, _ = inputs
    d_o = o if read else None
    torch.library.opcheck(window_gated_delta_rule_backward, (q_, k, g, beta, *saved, d_o, final_state, v.dtype, 0.5))
    leaves = [None if x is None else x.requires_grad_() for x in inputs]
    torch.library.opcheck(window_gated_delta_rule, (*leaves, 0.5))


@interpreted
def test_a_second_backward_is_refused() -> None:
    leaves = {n: x.requires_grad_() for n, x in make_inputs(1, 3, 1, 4, 4).items()}
    o, state = gated_delta_rule(**leaves, backend="triton")
    assert o is not None
    for d in torch.autograd.grad(o.sum() + state.sum(), list(leaves.values()), create_graph=True):
        with pytest.raises(NotImplementedError, match=r"^the Triton gated delta rule is differentiable once"):
            d.sum().backward()
    with pytest.raises(ValueError, match="only plain torch has the derivatives"):
        torch.func.grad(lambda v: gated_delta_rule(**leaves | {"v": v}, backend="triton")[1].sum())(leaves["v"])


@not_interpreted
def test_without_a_cuda_device_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "needs a CUDA device" in str(why_not_triton(torch.empty(1, 4, 1, 8)))


@not_interpreted
@pytest.mark.parametrize(
    ("k", "reason"),
    [
        (torch.empty(1, 65, 1, 8), "at most 64 tokens"),
        (torch.empty(1, 4, 1, 129), "key dim of at most 128"),
        (torch.empty(1, 4, 1, 8, dtype=torch.float64), "float64"),
        (torch.empty(1, 4, 1, 8, dtype=torch.bfloat16), "bfloat16"),
    ],
)
def test_keys_it_cannot_take_are_refused_with_the_reason(
    k: Tensor, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert reason in str(why_not_triton(k))


class _WrongGateGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, g: Tensor) -> Tensor:
        return g.clone()

    @staticmethod
    def backward(ctx: object, d: Tensor) -> Tensor:
        return 1.01 * d


def _wrong(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None, scale: float
) -> tuple[Tensor | None, Tensor]:
    return reference_gated_delta_rule(q, k, v, _WrongGateGradient.apply(g), beta, initial_state, scale)


def _broken(**_: object) -> tuple[None, Tensor]:
    raise RuntimeError("out of resource: shared memory")


@not_interpreted
def test_self_test_passes_a_right_kernel_and_names_what_is_wrong() -> None:
    def check(kernel: Kernel, dtype: torch.dtype = torch.float32) -> str | None:
        return self_test(kernel, reference_gated_delta_rule, CPU, dtype, 8, tokens=19)

    assert check(reference_gated_delta_rule) is None
    assert check(reference_gated_delta_rule, torch.bfloat16) is None
    assert str(check(_wrong)).startswith("d_g is off by 1.0e-02")
    assert check(_broken) == "it raises RuntimeError: out of resource: shared memory"


@not_interpreted
@pytest.mark.parametrize("kernel", [_wrong, _broken])
def test_a_wrong_kernel_is_loud_once_and_auto_goes_on(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(triton_window, "triton_gated_delta_rule", kernel)
    triton_window._cached_verdict.cache_clear()
    k = torch.empty(1, 4, 1, 8)
    next_best = next(name for name, b in BACKENDS.items() if name != "triton" and b.why_not(k) is None)
    try:
        with (
            fp32_matmul("highest"),
            pytest.warns(RuntimeWarning, match=r"the Triton kernel is wrong on cpu .*will not be used"),
        ):
            assert gated_delta_rule.select(k) == next_best
        with fp32_matmul("highest"), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert gated_delta_rule.select(k) == next_best
        with (
            fp32_matmul("highest"),
            pytest.raises(ValueError, match=r"model\.backend='triton' cannot run here: the Triton kernel is wrong"),
        ):
            gated_delta_rule(**make_inputs(1, 4, 1, 8, 8), backend="triton")
    finally:
        triton_window._cached_verdict.cache_clear()


@pytest.mark.process
@not_interpreted
def test_importing_the_operators_does_not_import_triton() -> None:
    code = (
        "import sys; from sleep_lightning.ops.gated_delta_rule import triton_window; assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
