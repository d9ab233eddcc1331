"""The suite that every window model inherits: what sleep, cost and training rely on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import Memory, WindowModel, why_not_window_model
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import Checkpointing, SleepConfig, sleep
from sleep_lightning.sleep.counted_flops import counted_pass_flops
from sleep_lightning.testing.tiny import tiny_batch
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.prediction import predict

B, T = 3, 6


class WindowModelTestCase:
    """Checks a model against the ``WindowModel`` protocol, alone and through sleep, training and cost.

    Inherit and write ``model``.
    """

    tolerance = 1e-5
    """Largest difference, relative and absolute, between two ways to compute the same in fp32."""

    def model(self) -> WindowModel:
        """A new, small model with a vocabulary of at least 3; the same weights at every call."""
        raise NotImplementedError

    def tokens(self, model: WindowModel, rows: int = B, length: int = T) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        return torch.randint(min(3, model.vocab_size), (rows, length), generator=generator)

    def some_memory(self, model: WindowModel, rows: int = B) -> Memory:
        """What a window has written, noise added: no part of it is zero."""
        with torch.no_grad():
            written = model.blocks(model.embed(self.tokens(model, rows)), model.zero_memory(rows))[1]
        generator = torch.Generator().manual_seed(8)
        return written.map(lambda x: x + 0.1 * torch.randn(x.shape, generator=generator))

    def assert_close(self, a: Memory | Tensor, b: Memory | Tensor) -> None:
        for x, y in zip(_tensors(a), _tensors(b), strict=True):
            torch.testing.assert_close(x, y, rtol=self.tolerance, atol=self.tolerance)

    def test_has_what_every_run_needs(self) -> None:
        model = self.model()
        assert why_not_window_model(model) is None
        assert model.n_blocks >= 1 and model.vocab_size >= 3
        for cached in (False, True):
            writers = list(model.writers(cached=cached))
            assert writers == sorted(set(writers)) and set(writers) <= set(range(model.n_blocks))
        assert set(model.writers()) <= set(model.writers(cached=True))

    def test_shapes_and_dtypes(self) -> None:
        model, tokens = self.model(), self.tokens(self.model())
        h = model.embed(tokens)
        h_out, memory = model.blocks(h, model.zero_memory(B))
        assert h.shape[:2] == (B, T) and h_out.shape == h.shape
        logits = model.logits(h_out)
        assert logits.shape == (B, T, model.vocab_size) and logits.dtype == torch.float32
        assert isinstance(memory, Memory)

    def test_zero_memory_is_zeros_and_grows_with_the_batch(self) -> None:
        model = self.model()
        memory = model.zero_memory(B)
        assert not any(x.any() for x in _tensors(memory))
        assert memory.nbytes * 2 == model.zero_memory(2 * B).nbytes
        assert all(x.dtype == torch.float32 and len(x) == B for x in _tensors(memory))
        assert bool(model.writers()) == bool(memory.nbytes)

    def test_every_tensor_of_the_memory_keeps_its_shape(self) -> None:
        model = self.model()
        start = model.zero_memory(B)
        after = model.blocks(model.embed(self.tokens(model)), start)[1]
        assert [x.shape for x in _tensors(after)] == [x.shape for x in _tensors(start)]

    def test_a_pass_changes_none_of_its_inputs(self) -> None:
        model = self.model()
        h, memory = model.embed(self.tokens(model)).detach(), self.some_memory(model)
        kept, before = h.clone(), memory.clone()
        with torch.no_grad():
            first, second = (model.blocks(h, memory) for _ in range(2))
        assert torch.equal(h, kept) and torch.equal(first[0], second[0])
        for x, y in zip(_tensors(memory), _tensors(before), strict=True):
            assert torch.equal(x, y)

    def test_a_write_leaves_the_memory_of_a_pass(self) -> None:
        """Of all blocks, and of every part of the stack."""
        model = self.model()
        h, memory = model.embed(self.tokens(model)), self.some_memory(model)
        for start in range(model.n_blocks):
            for stop in range(start + 1, model.n_blocks + 1):
                part = range(start, stop)
                self.assert_close(model.write(h, memory, None, part), model.blocks(h, memory, None, part)[1])
        self.assert_close(model.write(h, memory), model.blocks(h, memory)[1])

    def test_only_writers_write(self) -> None:
        model = self.model()
        h, memory = model.embed(self.tokens(model)), self.some_memory(model)
        for i in range(model.n_blocks):
            after = model.blocks(h, memory, None, range(i, i + 1))[1]
            same = all(torch.equal(x, y) for x, y in zip(_tensors(after), _tensors(memory), strict=True))
            assert same == (i not in model.writers()), f"block {i}"

    def test_parts_in_turn_are_the_whole_stack(self) -> None:
        model = self.model()
        h, memory = model.embed(self.tokens(model)), self.some_memory(model)
        expected_h, expected = model.blocks(h, memory)
        for cut in range(1, model.n_blocks):
            first = model.blocks(h, memory, None, range(cut))
            h_out, after = model.blocks(*first, None, range(cut, model.n_blocks))
            self.assert_close(h_out, expected_h)
            self.assert_close(after, expected)

    def test_a_pass_is_causal(self) -> None:
        model = self.model()
        tokens, memory = self.tokens(model), self.some_memory(model)
        changed = tokens.clone()
        changed[:, T // 2 :] = (tokens[:, T // 2 :] + 1) % 3
        (h, _), (other, _) = (model.blocks(model.embed(x), memory) for x in (tokens, changed))
        self.assert_close(h[:, : T // 2], other[:, : T // 2])
        assert not torch.allclose(h[:, T // 2 :], other[:, T // 2 :])

    def test_rows_of_a_batch_do_not_meet(self) -> None:
        model = self.model()
        tokens, memory = self.tokens(model), self.some_memory(model)
        h, after = model.blocks(model.embed(tokens), memory)
        alone_h, alone = model.blocks(model.embed(tokens[:1]), memory.map(lambda x: x[:1]))
        self.assert_close(alone_h, h[:1])
        self.assert_close(alone, after.map(lambda x: x[:1]))

    def test_memory_is_read_and_gets_gradient(self) -> None:
        """A later window's logits depend on it, and so does what an earlier one should have written."""
        model = self._with_memory()
        h = model.embed(self.tokens(model))
        inputs = h.detach().requires_grad_()
        later = model.logits(model.blocks(h.detach(), model.write(inputs, model.zero_memory(B)))[0])
        (gradient,) = torch.autograd.grad(later.square().sum(), inputs)
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0

    def test_memory_saves_and_loads(self, tmp_path: Path) -> None:
        memory = self.some_memory(self._with_memory())
        memory.save(tmp_path / "memory.safetensors")
        loaded = Memory.load(tmp_path / "memory.safetensors")
        for name, x in memory.named_tensors().items():
            assert torch.equal(loaded.named_tensors()[name], x)

    @pytest.mark.parametrize("n_passes", [1, 3])
    def test_sleep_is_passes_over_the_window(self, n_passes: int) -> None:
        model = self.model()
        tokens, memory = self.tokens(model), self.some_memory(model)
        h, expected = model.embed(tokens), memory
        for _ in range(n_passes):
            h, expected = model.blocks(h, expected)
        self.assert_close(sleep(model, tokens, memory, SleepConfig(T, n_passes)), expected)

    @pytest.mark.parametrize("policy", ["pass", "window"])
    def test_recomputation_changes_no_gradient(self, policy: Checkpointing) -> None:
        expected, actual = (self._gradients(policy=p) for p in ("none", policy))
        for a, b in zip(actual, expected, strict=True):
            self.assert_close(a, b)

    def test_predictions_are_those_that_training_scores(self) -> None:
        model, batch = self.model(), tiny_batch(ring=T)
        loss = accumulate_gradients(model, batch, SleepConfig(T, 2))
        logits = predict(model, batch, SleepConfig(T, 2))
        scored = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        torch.testing.assert_close(scored, loss, rtol=1e-4, atol=1e-5)

    def test_every_parameter_is_optimised_once(self) -> None:
        model = self.model()
        optimizer = build_optimizer(model, TrainingConfig())
        optimised = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(optimised) == len(set(optimised)) == len(list(model.parameters()))

    def test_flops_that_it_says_are_those_it_dispatches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(build.SWITCH, "0")  # kernels that are called directly are not counted
        model, tokens = self.model(), 4 * T
        for writes_only in (False, True):
            stop = (max(model.writers(), default=-1) + 1) if writes_only else model.n_blocks
            said = model.pass_flops(tokens, range(stop), writes_only=writes_only)
            counted = counted_pass_flops(model, tokens, range(stop), writes_only, 0)
            for a, b in () if said is None else ((said.forward, counted.forward), (said.backward, counted.backward)):
                assert a.total() == pytest.approx(b.total(), rel=0.1)

    def _gradients(self, policy: Checkpointing) -> list[Tensor]:
        model = self.model()
        accumulate_gradients(model, tiny_batch(ring=T), SleepConfig(T, 3), policy=policy)
        return [torch.zeros(()) if p.grad is None else p.grad for p in model.parameters()]

    def _with_memory(self) -> WindowModel:
        model = self.model()
        if not model.writers():
            pytest.skip("the model has no memory")
        return model


def _tensors(x: Memory | Tensor) -> list[Tensor]:
    return [x] if isinstance(x, Tensor) else list(x.named_tensors().values())
