"""The suite that every kernel (backend) of a memory rule inherits: values, final state, all gradients."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sleep_lightning.ops import Rule, gated_delta_rule
from sleep_lightning.testing.rule_calls import Inputs, make_inputs, relative_error, run_rule

NAMES = ("q", "k", "v", "g", "beta", "initial_state")


class KernelTestCase:
    """Compares a backend with the rule's ``reference`` backend in float64 on CPU, and with itself.

    Inherit and set ``backend``; override the other attributes where the kernel is limited. The rule must have a backend
    named ``reference``, its definition token by token.
    """

    backend: str
    """Name of the backend in ``rule.backends``."""
    rule: Rule = gated_delta_rule
    """The memory rule."""
    tolerance = 2e-5
    """Largest relative RMS error against the reference, of outputs, state and gradients in fp32."""
    agreement = 1e-5
    """Largest difference between two ways of computing the same values with this backend."""
    max_T = 150
    """Longest window that it takes."""
    examples = 30
    """Random shapes to try."""
    heads: Sequence[int] = (1, 2, 3)
    key_dims: Sequence[int] = (2, 4, 8, 16, 24)
    value_dims: Sequence[int] = (1, 4, 16, 20)
    supports_bfloat16 = True
    device = "cpu"
    """Where the backend runs."""

    def inputs(self, *shape: int, **options: Any) -> Inputs:
        """``make_inputs`` on the backend's device."""
        return {name: x.to(self.device) for name, x in make_inputs(*shape, **options).items()}

    def compare(self, inputs: Inputs, *, tolerance: float | None = None, read: bool = True) -> None:
        expected = run_rule("reference", {n: x.double().cpu() for n, x in inputs.items()}, read=read, rule=self.rule)
        actual = {n: x.cpu() for n, x in run_rule(self.backend, inputs, read=read, rule=self.rule).items()}
        assert actual.keys() == expected.keys()
        for name, value in actual.items():
            assert torch.isfinite(value).all(), name
            error = relative_error(value, expected[name])
            assert error <= (tolerance or self.tolerance), f"{name}: relative RMS error {error:.2e}"

    def test_random_shapes(self) -> None:
        most = min(self.examples, settings().max_examples)  # a profile may ask for fewer

        @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            B=st.integers(1, 3),
            T=st.integers(1, self.max_T),
            H=st.sampled_from(self.heads),
            K=st.sampled_from(self.key_dims),
            V=st.sampled_from(self.value_dims),
            decay=st.sampled_from([0.0, 0.05, 1.0, 8.0]),
            read=st.booleans(),
            seed=st.integers(0, 1000),
        )
        def check(B: int, T: int, H: int, K: int, V: int, decay: float, read: bool, seed: int) -> None:
            self.compare(self.inputs(B, T, H, K, V, seed=seed, decay=decay), read=read)

        check()

    @pytest.mark.parametrize("T", [1, 2, 24, 63, 64, 65, 100, 128])
    def test_lengths_around_a_chunk(self, T: int) -> None:
        if T > self.max_T:
            pytest.skip(f"{self.backend} takes T <= {self.max_T}")
        self.compare(self.inputs(2, T, 2, 16, 16))

    @pytest.mark.parametrize("decay", [0.0, 15.0, 100.0, 1000.0])
    def test_extreme_decays(self, decay: float) -> None:
        inputs = self.inputs(2, 48, 2, 8, 8, decay=decay)
        inputs["g"][:, ::3] *= 1e-3  # small decays right after enormous ones
        self.compare(inputs, tolerance=10 * self.tolerance)

    @pytest.mark.parametrize("g", [-110.0, -1e4, -1e30, -0.1 * torch.finfo(torch.float32).max, -torch.inf])
    def test_packed_sequences_are_separate_calls(self, g: float) -> None:
        """A log decay near -inf in front of a sequence: values, state and gradients."""
        inputs = self.inputs(2, 40, 2, 8, 8)
        inputs["g"][:, (0, 1, 17, 39)] = g
        self.compare(inputs)
        o, state = self.rule(**inputs, backend=self.backend)
        parts = [
            {n: x[:, part] for n, x in inputs.items() if n != "initial_state"}
            for part in (slice(0, 1), slice(1, 17), slice(17, 39), slice(39, 40))
        ]
        separate = [self.rule(**part, backend=self.backend) for part in parts]
        reads = torch.cat([x for x, _ in separate if x is not None], 1)
        torch.testing.assert_close(o, reads, rtol=self.agreement, atol=self.agreement)
        torch.testing.assert_close(state, separate[-1][1], rtol=self.agreement, atol=self.agreement)

    def test_any_log_decay_down_to_minus_infinity(self) -> None:
        inputs = self.inputs(2, 48, 2, 8, 8)
        generator = torch.Generator().manual_seed(2)
        of_size = 10 ** torch.empty(inputs["g"].shape).uniform_(-3, 39, generator=generator)  # a few are infinite
        small = torch.rand(inputs["g"].shape, generator=generator) < 0.7
        inputs["g"] = torch.where(small.to(self.device), inputs["g"], -of_size.to(self.device))
        self.compare(inputs)

    @pytest.mark.parametrize("empty", range(5))
    def test_nothing_in_nothing_out(self, empty: int) -> None:
        """A size of 0: empty or zero reads, the state as it was, all gradients."""
        size = [2, 5, 2, 4, 3]
        size[empty] = 0
        inputs = self.inputs(*size)
        actual = run_rule(self.backend, inputs, rule=self.rule)
        B, T, H, K, V = size
        assert actual["o"].shape == (B, T, H, V) and not actual["o"].any()
        expected = inputs["initial_state"] if T == 0 else torch.zeros(B, H, K, V, device=self.device)
        assert torch.equal(actual["final_state"], expected)
        assert all(actual[f"d_{n}"].shape == x.shape for n, x in inputs.items())
        assert run_rule(self.backend, inputs, read=False, rule=self.rule)["final_state"].shape == (B, H, K, V)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    @pytest.mark.parametrize("name", ["q", "k", "v", "g", "beta"])
    def test_no_output_depends_on_a_later_token_that_is_not_finite(self, name: str, value: float) -> None:
        inputs = self.inputs(2, 40, 2, 8, 8)
        expected, _ = self.rule(**inputs, backend=self.backend)
        inputs[name][1, 21] = torch.nan if name == "g" else value
        o, state = self.rule(**inputs, backend=self.backend)
        assert o is not None and expected is not None
        torch.testing.assert_close(o[0], expected[0], rtol=self.agreement, atol=self.agreement)
        torch.testing.assert_close(o[1, :21], expected[1, :21], rtol=self.agreement, atol=self.agreement)
        assert not o[1, 21].isfinite().any()
        if name != "q":
            assert not state[1].isfinite().any() and not o[1, 21:].isfinite().any()

    def test_identical_keys(self) -> None:
        """The worst-conditioned triangular system: all keys equal, every write at full strength."""
        inputs = self.inputs(1, 48, 2, 8, 8, decay=0.0)
        inputs["k"][:] = inputs["k"][:, :1].clone()
        inputs["beta"][:] = 1.0
        self.compare(inputs)

    def test_bfloat16(self) -> None:
        if not self.supports_bfloat16:
            pytest.skip(f"{self.backend} has no bfloat16 here")
        inputs = self.inputs(2, 48, 2, 16, 16, dtype=torch.bfloat16)
        self.compare(inputs, tolerance=1e-2)
        o, state = self.rule(**inputs, backend=self.backend)
        assert o is not None and o.dtype == torch.bfloat16
        assert state.dtype == torch.float32

    def test_autocast_changes_nothing(self) -> None:
        """In neither direction: a backward may run inside the caller's autocast as well."""
        if self.backend == "reference" or not self.supports_bfloat16:
            pytest.skip(f"not for {self.backend} here")
        inputs = self.inputs(2, 40, 2, 16, 16)
        expected = run_rule(self.backend, inputs, rule=self.rule)
        with torch.autocast(self.device, torch.bfloat16):
            actual = run_rule(self.backend, inputs, rule=self.rule)
        for name, value in actual.items():
            assert torch.equal(value, expected[name]), name

    def test_no_initial_state_is_a_zero_state(self) -> None:
        inputs = self.inputs(2, 20, 2, 8, 8)
        zeros = inputs | {"initial_state": torch.zeros_like(inputs["initial_state"])}
        without = inputs | {"initial_state": None}
        for a, b in zip(
            self.rule(**without, backend=self.backend),
            self.rule(**zeros, backend=self.backend),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_state_carries_over_a_split(self) -> None:
        """Two calls that pass the state on equal one call: windows are cuts in one scan."""
        inputs = self.inputs(2, 40, 2, 8, 8)
        whole_o, whole_state = self.rule(**inputs, backend=self.backend)
        state: Tensor | None = inputs["initial_state"]
        parts = []
        for part in (slice(0, 17), slice(17, 40)):
            cut = {n: x[:, part] for n, x in inputs.items() if n != "initial_state"}
            o, state = self.rule(**cut, initial_state=state, backend=self.backend)
            assert o is not None
            parts.append(o)
        torch.testing.assert_close(torch.cat(parts, 1), whole_o, rtol=self.agreement, atol=self.agreement)
        torch.testing.assert_close(state, whole_state, rtol=self.agreement, atol=self.agreement)

    def test_a_write_leaves_the_state_that_a_read_leaves(self) -> None:
        inputs = self.inputs(2, 40, 2, 8, 8)
        o, written = self.rule(**inputs | {"q": None}, backend=self.backend)
        assert o is None
        torch.testing.assert_close(
            written, self.rule(**inputs, backend=self.backend)[1], rtol=self.agreement, atol=self.agreement
        )

    def test_token_by_token_equals_the_window(self) -> None:
        inputs = self.inputs(2, 9, 2, 8, 8)
        whole, final = self.rule(**inputs, backend=self.backend)
        state: Tensor | None = inputs.pop("initial_state")
        reads = []
        for t in range(9):
            token = {n: x[:, t : t + 1] for n, x in inputs.items()}
            o, state = self.rule(**token, initial_state=state, backend=self.backend)
            assert o is not None
            reads.append(o)
        torch.testing.assert_close(torch.cat(reads, 1), whole, rtol=self.agreement, atol=self.agreement)
        torch.testing.assert_close(state, final, rtol=self.agreement, atol=self.agreement)

    def test_only_the_output_or_only_the_state_carries_gradient(self) -> None:
        for which in (0, 1):
            grads = []
            for backend in ("reference", self.backend):
                leaves = {n: x.clone().requires_grad_() for n, x in self.inputs(1, 20, 2, 8, 8).items()}
                out = self.rule(**leaves, backend=backend)[which]
                assert out is not None
                grads.append(torch.autograd.grad(out.square().sum(), list(leaves.values()), allow_unused=True))
            for name, expected, actual in zip(NAMES, *grads, strict=True):
                if expected is None:
                    assert actual is None or not actual.any(), name
                else:
                    assert relative_error(actual, expected) <= self.tolerance, name


class FlaTestCase(KernelTestCase):
    """For flash-linear-attention's kernels on a GPU; skips where the dispatcher rejects this pair of GPU and Triton."""

    backend = "fla"
    device = "cuda"
    tolerance = 1e-2  # they multiply in TF32
    agreement = 1e-3
    heads = (2,)  # each new size is autotuned for about a minute
    key_dims = value_dims = (8, 16)

    @pytest.fixture(autouse=True)
    def _usable(self) -> None:
        if reason := self.rule.backends[self.backend].why_not(torch.empty(1, 1, 1, 16, device=self.device)):
            pytest.skip(reason)
