"""The suite that every memory rule inherits: what the package relies on in a fast-weight block."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import HybridLM
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.parameter_groups import hidden_matrices
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import SleepConfig, wake
from sleep_lightning.sleep.counted_flops import counted_pass_flops
from sleep_lightning.testing.tiny import tiny_batch, tiny_model
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer

T = 7


class MemoryRuleTestCase:
    """Compares a fast-weight block with its definition, and checks it through sleep, optimizer and compiler.

    Inherit, set ``letter``, and write the block out in ``definition``.
    """

    letter: str
    """The rule's letter in ``model.pattern``."""

    def definition(self, mixer: FastWeights, x_BTE: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs ``[B, T, E]`` and a state -> output ``[B, T, E]`` and the new state, token by token in plain torch.

        It reads the mixer's parameters and calls nothing else of it.
        """
        raise NotImplementedError

    def model(self, **overrides: object) -> HybridLM:
        return tiny_model(**({"pattern": self.letter} | overrides))  # type: ignore[arg-type]

    def case(self, dtype: torch.dtype = torch.float32, **overrides: object) -> tuple[FastWeights, Tensor, Tensor]:
        """A mixer with value dim 2 K, inputs ``[3, T, E]`` and a state."""
        mixer = self.model(expand_v=2.0, **overrides).memory_layers[0]
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(3, T, 16, generator=generator)
        state = torch.randn(mixer.zero_state(3).shape, generator=generator)
        return mixer.to(dtype), x.to(dtype), state.to(dtype)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
    @pytest.mark.parametrize("gate_proj", ["separate", "fused"])
    def test_is_the_definition(self, gate_proj: str, dtype: torch.dtype, tolerance: float) -> None:
        """Output, state and every gradient."""
        mixer, x, state = self.case(torch.float64, gate_proj=gate_proj)
        d_y, d_state = torch.randn(3, T, 16, dtype=torch.float64), torch.randn_like(state)

        def results(y: Tensor | None, final: Tensor, leaves: list[Tensor]) -> list[Tensor]:
            assert y is not None
            loss = (y * d_y.to(y)).sum() + (final * d_state.to(final)).sum()
            return [y.detach(), final.detach(), *torch.autograd.grad(loss, leaves)]

        def leaves(dtype: torch.dtype) -> list[Tensor]:
            return [t.detach().to(dtype).requires_grad_() for t in (x, state)]

        inputs = leaves(torch.float64)
        expected = results(*self.definition(mixer, *inputs), [*inputs, *mixer.parameters()])
        mixer, inputs = mixer.to(dtype), leaves(dtype)
        y, final = mixer(*inputs)[:2]
        actual = results(y, final, [*inputs, *mixer.parameters()])
        for a, e in zip(actual, expected, strict=True):
            assert (a.double() - e).norm() <= tolerance * (e.norm() + 1e-2)

    def test_two_windows_are_one_when_everything_is_carried(self) -> None:
        mixer, x, state = self.case()
        conv = mixer.zero_conv(3).normal_()
        whole = mixer(x, state, conv)
        for cut in (1, 2, 5):
            first = mixer(x[:, :cut], state, conv)
            second = mixer(x[:, cut:], first.state, first.conv)
            torch.testing.assert_close(torch.cat((first.y, second.y), 1), whole.y, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(second.state, whole.state, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(second.conv, whole.conv, rtol=1e-5, atol=1e-5)

    def test_carrying_zeros_is_starting_over(self) -> None:
        mixer, x, state = self.case()
        torch.testing.assert_close(mixer(x, state, mixer.zero_conv(3))[:2], mixer(x, state)[:2], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("carried", [False, True])
    def test_a_write_leaves_the_state_that_a_read_leaves(self, carried: bool) -> None:
        mixer, x, state = self.case()
        conv = mixer.zero_conv(3).normal_() if carried else None
        read, written = mixer(x, state, conv), mixer(x, state, conv, read=False)
        assert written.y is None
        torch.testing.assert_close(written.state, read.state)
        torch.testing.assert_close(written.conv, read.conv)

    def test_token_by_token_equals_the_window(self) -> None:
        model, tokens = self.model(pattern=2 * self.letter), torch.randint(2, (2, T))
        memory = model.zero_memory(2, carry_conv_state=True)
        h, expected = wake(model, tokens, memory)
        for t in range(T):
            h_t, memory = wake(model, tokens[:, t : t + 1], memory)
            torch.testing.assert_close(h_t, h[:, t : t + 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(memory.states, expected.states, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("native", [True, False])
    @pytest.mark.parametrize("carried", [False, True])
    def test_no_output_depends_on_a_later_token_that_is_not_finite(self, carried: bool, native: bool) -> None:
        model, h = self.model(pattern=f"A{self.letter}"), torch.randn(2, 30, 16)
        memory = model.zero_memory(2, carry_conv_state=carried, cached_tokens=7 if carried else 0)
        spoiled = h.index_fill(1, torch.tensor([13]), torch.nan)
        with nullcontext() if native else plain_torch():
            expected, actual = (model.blocks(x, memory)[0] for x in (h, spoiled))
        torch.testing.assert_close(actual[:, :13], expected[:, :13], rtol=0, atol=0)
        assert actual[:, 13:].isnan().all()

    @pytest.mark.parametrize("native", [True, False])
    @pytest.mark.parametrize(("B", "tokens"), [(0, 3), (2, 0)])
    def test_nothing_in_nothing_out(self, B: int, tokens: int, native: bool) -> None:
        model = self.model(pattern=f"A{self.letter}")
        memory = model.zero_memory(B).map(torch.ones_like)
        with nullcontext() if native else plain_torch():
            h, after = model.blocks(model.embed(torch.zeros(B, tokens, dtype=torch.int64)), memory)
            model.logits(h).sum().backward()
        assert h.shape == (B, tokens, 16)
        if not tokens:
            assert all(torch.equal(a, b) for a, b in zip(after.states, memory.states, strict=True))

    def test_memory_is_fp32(self) -> None:
        memory = self.model(pattern=f"A{self.letter}").zero_memory(5, carry_conv_state=True)
        assert {x.dtype for x in (*memory.states, *memory.conv)} == {torch.float32}

    def test_every_parameter_is_optimised_once_and_by_its_kind(self) -> None:
        """Muon takes the blocks' matrices, split into their parts; AdamW, without decay, gates, vectors, taps."""
        model = self.model(pattern=f"A{self.letter}")
        optimizer = build_optimizer(model, TrainingConfig())
        optimised = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(optimised) == len(set(optimised)) == len(list(model.parameters()))
        hidden = dict(hidden_matrices(model))
        assert set(hidden) == {
            p
            for n, p in model.named_parameters()
            if n.endswith(("in_proj.weight", "out_proj.weight", "tap_proj.weight"))
        }
        assert all(sum(splits) == len(p) for p, splits in hidden.items())
        decayed = {p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
        for name, p in model.layers.named_parameters():
            assert (p in decayed) == (p in hidden), name

    def test_flops_that_it_says_are_those_it_dispatches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Read and write, forward and backward; the triangular solve of a delta rule is not counted by torch."""
        monkeypatch.setenv(build.SWITCH, "0")
        model = self.model(backend="chunked", d_model=32)
        for writes_only in (False, True):
            said = model.pass_flops(4 * T, range(1), writes_only=writes_only)
            counted = counted_pass_flops(model, 4 * T, range(1), writes_only, 0)
            for a, b in () if said is None else ((said.forward, counted.forward), (said.backward, counted.backward)):
                assert a.total() == pytest.approx(b.total(), rel=0.1)

    def test_all_parameters_learn(self) -> None:
        model = self.model(pattern=f"A{self.letter}A{self.letter}")
        accumulate_gradients(model, tiny_batch(), SleepConfig(6, 2))
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.any() and torch.isfinite(p.grad).all(), name

    def test_bfloat16_autocast_keeps_the_state_in_fp32(self) -> None:
        mixer, x, state = self.case()
        with torch.autocast("cpu", torch.bfloat16):
            out = mixer(x, state)
        assert out.state.dtype == torch.float32
        exact = mixer(x, state)
        assert (out.y.float() - exact.y).norm() < 0.05 * exact.y.norm()
        assert (out.state - exact.state).norm() < 0.02 * exact.state.norm()

    @pytest.mark.parametrize("carried", [False, True])
    def test_compiles_into_one_graph(self, carried: bool) -> None:
        model, tokens = self.model(pattern=f"A{self.letter}"), torch.randint(2, (2, T))
        memory = model.zero_memory(2, carry_conv_state=carried).map(torch.randn_like)

        def gradients() -> tuple[Tensor, ...]:
            h, after = model.blocks(model.embed(tokens), memory)
            loss = h.square().sum() + sum(s.square().sum() for s in model.write(h, after).states)
            return torch.autograd.grad(loss, list(model.layers.parameters()), allow_unused=True)

        torch._dynamo.reset()  # the recompilation limit counts the graphs of earlier tests
        with plain_torch():
            expected = gradients()
        model._run = torch.compile(  # type: ignore[method-assign]
            model._run, dynamic=False, fullgraph=True, backend="aot_eager"
        )
        for a, b in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Disable the C++ kernels inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(build.SWITCH, "0")
        yield
