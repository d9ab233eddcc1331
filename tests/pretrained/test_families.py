"""Tiny random snapshots written by transformers: the same logits and gradients here; written back to the bit."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from sleep_lightning.model import HybridLM
from sleep_lightning.pretrained import export, load_pretrained
from sleep_lightning.sleep import SleepConfig, Window, run_window_loop
from tests.pretrained.snapshots import KINDS, tokens, write


def logits_of(model: HybridLM, tokens_BT: Tensor, sleep: SleepConfig | None = None) -> Tensor:
    """Of all tokens; every window but the last sleeps once they are known."""
    sleep = sleep or SleepConfig(tokens_BT.shape[1])
    memory, found, L = model.zero_memory(len(tokens_BT)), [], sleep.window_size
    for start in range(0, tokens_BT.shape[1], L):
        window = Window(start, start + L, False)
        h = next(h for _, h, _ in run_window_loop(model, tokens_BT, [window], memory, sleep))
        assert h is not None
        found.append(model.logits(h))
        slept = run_window_loop(model, tokens_BT, [window._replace(sleeps=True)], memory, sleep)
        memory = next(after for _, _, after in slept)
    return torch.cat(found, 1)


@pytest.mark.parametrize("T", [20, 150])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_transformers(kind: str, T: int, tmp_path: Path) -> None:
    theirs, ours = write(kind, tmp_path), load_pretrained(tmp_path)
    x = tokens(2, T)
    expected, actual = theirs(x).logits, logits_of(ours, x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.detach().abs().max()))
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    gradient = theirs.get_input_embeddings().weight.grad  # type: ignore[operator]
    assert ours.embedding.weight.grad is not None
    torch.testing.assert_close(ours.embedding.weight.grad, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("shard", [None, "20KB"])
@pytest.mark.parametrize("kind", KINDS)
def test_export_gives_the_same_files(kind: str, shard: str | None, tmp_path: Path) -> None:
    model = write(kind, tmp_path / "base").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "base", **({} if shard is None else {"max_shard_size": shard}))  # type: ignore[operator]
    if shard is not None:
        (tmp_path / "base" / "model.safetensors").unlink()
    export(load_pretrained(tmp_path / "base"), tmp_path / "copy")
    originals = sorted((tmp_path / "base").glob("*.safetensors"))
    assert len(originals) == 1 if shard is None else len(originals) > 3
    for original in originals:
        expected, actual = load_file(original), load_file(tmp_path / "copy" / original.name)
        assert expected.keys() == actual.keys()
        for name, x in expected.items():
            assert x.dtype == actual[name].dtype == torch.bfloat16 and torch.equal(x, actual[name]), name
    assert (tmp_path / "copy" / "config.json").read_bytes() == (tmp_path / "base" / "config.json").read_bytes()


@pytest.mark.parametrize(("kind", "rule"), [("llama", "G"), ("qwen2", "J"), ("qwen3", "H"), ("qwen3_5", "G")])
class TestInserted:
    def test_inside_a_window_logits_are_equal_to_the_bit(self, kind: str, rule: str, tmp_path: Path) -> None:
        write(kind, tmp_path)
        base, x = load_pretrained(tmp_path), tokens(2, 24)
        model = load_pretrained(tmp_path, {"every": 2, "rule": rule})
        assert model.config.pattern == "".join(
            p + rule.lower() for p in (base.config.pattern[:2], base.config.pattern[2:])
        )
        expected = logits_of(base, x)
        for N in (1, 2, 4):
            looped = SleepConfig(24, N, wake_passes=N)
            assert torch.equal(logits_of(model, x, looped), logits_of(base, x, looped)), N
            assert torch.equal(logits_of(model, x, SleepConfig(24, N)), expected), N

    def test_what_training_changes_comes_back_from_an_export(self, kind: str, rule: str, tmp_path: Path) -> None:
        write(kind, tmp_path / "base")
        model = load_pretrained(tmp_path / "base", {"every": 2, "rule": rule})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        export(model, tmp_path / "tuned", SleepConfig(8, 2))
        again, x = load_pretrained(tmp_path / "tuned"), tokens(2, 24)
        assert torch.equal(logits_of(model, x, SleepConfig(8, 2)), logits_of(again, x, SleepConfig(8, 2)))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        saved = json.loads((tmp_path / "tuned" / "sleep.json").read_text())
        assert saved["insert"] == {"every": 2, "rule": rule} and saved["sleep"]["n_passes"] == 2


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_over_windows_the_base_attends_within_each(kind: str, tmp_path: Path) -> None:
    """With memory that is never read, eviction is a block-diagonal mask."""
    theirs, x = write(kind, tmp_path), tokens(2, 24)
    model = load_pretrained(tmp_path, {"every": 2})
    window = torch.arange(24) // 8
    mask = (window[:, None] == window) & torch.ones(24, 24, dtype=torch.bool).tril()
    expected = theirs(
        x, attention_mask=torch.zeros(24, 24).masked_fill(~mask, -torch.inf)[None, None].expand(2, 1, -1, -1)
    )
    actual = logits_of(model, x, SleepConfig(8, 2))
    torch.testing.assert_close(
        actual, expected.logits, rtol=1e-4, atol=1e-4 * float(expected.logits.detach().abs().max())
    )


@pytest.mark.parametrize("source", ["base", "slept"])
def test_an_export_without_memory_is_given_some(source: str, tmp_path: Path) -> None:
    """As any directory is: new blocks, that change nothing at first; then an export holds them."""
    write("llama", tmp_path / "base")
    base, x = load_pretrained(tmp_path / "base"), tokens(2, 12)
    export(base, tmp_path / "slept", SleepConfig(8, 2))
    model = load_pretrained(tmp_path / source, {"every": 1})
    assert model.config.pattern == "AgAgAgAg" and torch.equal(logits_of(model, x), logits_of(base, x))
    export(model, tmp_path / "again")
    assert load_pretrained(tmp_path / "again").config.pattern == "AgAgAgAg"


def test_a_tuned_base_is_loaded_by_transformers(tmp_path: Path) -> None:
    write("llama", tmp_path / "base")
    model = load_pretrained(tmp_path / "base", {"every": 2})
    with torch.no_grad():
        model.layers[0].mlp.in_proj.weight.mul_(1.1)  # type: ignore[operator, union-attr]
    export(model, tmp_path / "tuned")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", dtype=torch.float32)
    x = tokens(1, 12)
    torch.testing.assert_close(logits_of(model, x), theirs(x).logits, rtol=1e-4, atol=1e-4)
