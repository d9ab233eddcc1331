"""Ouro and Jet-Nemotron, which transformers does not have: against their published equations, written out plainly.

Weights are of sizes at which every epsilon matters. Names, shapes and parameter counts are those of the full models.
"""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import ModelConfig
from sleep_lightning.pretrained import export, load_pretrained
from sleep_lightning.pretrained.families import family_of
from sleep_lightning.pretrained.loading import base_blocks
from sleep_lightning.sleep import SleepConfig
from tests.pretrained.published import JET, OURO, QWEN
from tests.pretrained.snapshots import VOCAB, tokens
from tests.pretrained.test_families import logits_of

TINY = {"hidden_size": 32, "intermediate_size": 40, "vocab_size": VOCAB, "rms_norm_eps": 1e-2}
TINY_OURO = OURO | TINY | {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
TINY_JET = JET | TINY
TINY_JET |= {"num_attention_heads": 4, "num_hidden_layers": 3, "layer_types": ["jet", "attn", "swa"]}
TINY_JET |= {
    "efficient_attention_config": {
        "jet": JET["efficient_attention_config"]["jet"] | {"head_dim": 6, "num_heads": 3, "norm_eps": "1e-1"},
        "swa": {"window_size": 5},
    }
}


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published tensors that a text model consists of."""
    family, raw, name = family_of(config, "config.json")
    model = ModelConfig(**family.values(raw, name))
    return {n: s for e in family.entries(model, base_blocks(model), family.prefixes[0]) for n, s in e.theirs.items()}


@pytest.mark.parametrize(
    ("config", "tensors", "parameters"),
    [(OURO, 269 - 2, 1_434_652_673 - 2049), (JET, 482, 1_964_806_208), (QWEN, None, 752_393_024)],
    ids=["Ouro-1.4B, without its exit gate", "Jet-Nemotron-2B", "Qwen3.5-0.8B"],
)
def test_full_size_manifests(config: dict[str, Any], tensors: int | None, parameters: int) -> None:
    shapes = shapes_of(config)
    assert tensors is None or len(shapes) == tensors
    assert sum(map(prod, shapes.values())) == parameters


def test_some_published_names_and_shapes() -> None:
    ouro, jet, qwen = shapes_of(OURO), shapes_of(JET), shapes_of(QWEN)
    assert ouro["model.layers.3.post_attention_layernorm_2.weight"] == (2048,)
    at = "model.layers.0.self_attn"
    assert jet[f"{at}.q_proj.weight"] == (1152, 1536) and jet[f"{at}.v_proj.weight"] == (3072, 1536)
    assert jet[f"{at}.dynamic_conv1d.kernel_generator.w1.weight"] == (384, 1536)
    assert jet[f"{at}.dynamic_conv1d.kernel_generator.w2.weight"] == (12288, 384)
    assert jet[f"{at}.o_norm.weight"] == (256,) and jet["model.layers.14.self_attn.k_proj.bias"] == (256,)
    at = "model.language_model.layers"
    assert qwen[f"{at}.0.linear_attn.in_proj_qkv.weight"] == (6144, 1024)
    assert qwen[f"{at}.0.linear_attn.conv1d.weight"] == (6144, 1, 4)
    assert qwen[f"{at}.3.self_attn.q_proj.weight"] == (4096, 1024)


def write(config: dict[str, Any], folder: Path, **more: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(name: str, shape: tuple[int, ...]) -> Tensor:
        x = torch.randn(shape, generator=generator)
        return 1 + 0.3 * x if "norm" in name else 0.3 * x

    weights = {name: random(name, shape) for name, shape in (shapes_of(config) | more).items()}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return weights


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def attention(w: dict[str, Tensor], at: str, x: Tensor, heads: int, theta: float, width: int | None = None) -> Tensor:
    q, k, v = (F.linear(x, w[f"{at}.{n}_proj.weight"], w.get(f"{at}.{n}_proj.bias")) for n in "qkv")
    T, D = x.shape[1], q.shape[-1] // heads
    q, k, v = (y.unflatten(-1, (-1, D)).transpose(1, 2) for y in (q, k, v))
    angle = torch.arange(T)[:, None] * theta ** -(torch.arange(0, D, 2) / D)
    cos, sin = (f.repeat(1, 2) for f in (angle.cos(), angle.sin()))

    def rotate(y: Tensor) -> Tensor:
        return y * cos + torch.cat((-y[..., D // 2 :], y[..., : D // 2]), -1) * sin

    k, v = (y.repeat_interleave(heads // y.shape[1], 1) for y in (rotate(k), v))
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    seen = seen if width is None else seen.triu(1 - width)
    weights = (rotate(q) @ k.transpose(2, 3) * D**-0.5).masked_fill(~seen, -torch.inf).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), w[f"{at}.o_proj.weight"])


def mlp(w: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    gate, up = (F.linear(x, w[f"{at}.{n}_proj.weight"]) for n in ("gate", "up"))
    return F.linear(F.silu(gate) * up, w[f"{at}.down_proj.weight"])


def jet(w: dict[str, Tensor], at: str, x: Tensor, heads: int, eps: float) -> Tensor:
    """Token by token, as in the published block's recurrent form."""
    q, k, v, a, b, gate = (F.linear(x, w[f"{at}.{n}_proj.weight"]) for n in "qkvabg")
    generator = f"{at}.dynamic_conv1d.kernel_generator"
    hidden = F.silu(F.linear(x, w[f"{generator}.w1.weight"]))
    taps = F.linear(hidden, w[f"{generator}.w2.weight"], w[f"{generator}.w2.bias"]).unflatten(-1, (-1, 4))
    v = F.silu((F.pad(v.transpose(1, 2), (3, 0)).unfold(2, 4, 1).transpose(1, 2) * taps).sum(-1))
    q, k = (F.silu(y).unflatten(-1, (heads, -1)) for y in (q, k))
    q, k = (y * (y.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for y in (q, k))
    v, gate = (y.unflatten(-1, (heads, -1)) for y in (v, gate))
    g, beta = -w[f"{at}.A_log"].exp() * F.softplus(a + w[f"{at}.dt_bias"]), b.sigmoid()
    state, read = x.new_zeros(len(x), heads, q.shape[-1], v.shape[-1]), []
    for t in range(x.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        error = v[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t])
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * error)
        read.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]) * q.shape[-1] ** -0.5)
    o = norm(torch.stack(read, 1), w[f"{at}.o_norm.weight"], eps) * F.silu(gate)
    return F.linear(o.flatten(2), w[f"{at}.o_proj.weight"])


@pytest.mark.parametrize("loops", [1, 4])
def test_ouro(loops: int, tmp_path: Path) -> None:
    gate = {"model.early_exit_gate.weight": (1, 32), "model.early_exit_gate.bias": (1,)}
    w, x, eps = write(TINY_OURO, tmp_path, **gate), tokens(2, 20), 1e-2
    h = w["model.embed_tokens.weight"][x]
    for _ in range(loops):
        for i in range(2):
            at = f"model.layers.{i}"
            n1, n2, n3, n4 = (
                w[f"{at}.{name}.weight"]
                for name in (
                    "input_layernorm",
                    "input_layernorm_2",
                    "post_attention_layernorm",
                    "post_attention_layernorm_2",
                )
            )
            h = h + norm(attention(w, f"{at}.self_attn", norm(h, n1, eps), 4, 1e6), n2, eps)
            h = h + norm(mlp(w, f"{at}.mlp", norm(h, n3, eps)), n4, eps)
        h = norm(h, w["model.norm.weight"], eps)
    expected = h @ w["lm_head.weight"].T
    model = load_pretrained(tmp_path)
    actual = logits_of(model, x, SleepConfig(20, wake_passes=loops, loop_norm=True))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    export(model, tmp_path / "copy")
    copy = load_file(tmp_path / "copy" / "model.safetensors")
    assert copy.keys() == w.keys() and all(torch.equal(copy[name], w[name]) for name in w)


def test_jet_nemotron(tmp_path: Path) -> None:
    w, x, eps = write(TINY_JET, tmp_path), tokens(2, 20), 1e-2
    h = w["model.embed_tokens.weight"][x]
    for i, kind in enumerate(("jet", "attn", "swa")):
        at = f"model.layers.{i}"
        y = norm(h, w[f"{at}.input_layernorm.weight"], eps)
        if kind == "jet":
            h = h + jet(w, f"{at}.self_attn", y, 3, 0.1)
        else:
            h = h + attention(w, f"{at}.self_attn", y, 4, 1e6, 5 if kind == "swa" else None)
        h = h + mlp(w, f"{at}.mlp", norm(h, w[f"{at}.post_attention_layernorm.weight"], eps))
    expected = norm(h, w["model.norm.weight"], eps) @ w["model.embed_tokens.weight"].T
    model = load_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(model, x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    export(model, tmp_path / "copy")
    copy = load_file(tmp_path / "copy" / "model.safetensors")
    assert copy.keys() == w.keys() and all(torch.equal(copy[name], w[name]) for name in w)


def test_ouro_with_six_inserted_layers_has_less_than_a_tenth_more_parameters() -> None:
    """The paper's Ouro: 6 Jet layers without MLP behind every fourth block (method: 8.1% for 8 heads of 128 x 256)."""
    from sleep_lightning.model import HybridLM
    from sleep_lightning.pretrained.insertion import Insertion

    family, raw, name = family_of(OURO, "config.json")
    values = family.values(raw, name)
    insertion = Insertion(every=4, rule="J", heads=8, key_dim=128, value_dim=256)
    with torch.device("meta"):
        base = HybridLM(ModelConfig(**values), 1)
        sizes = values | insertion.sizes(values, "") | {"pattern": insertion.pattern(values["pattern"])}
        model = HybridLM(ModelConfig(**sizes), 1)
    plain, more = (sum(p.numel() for p in m.parameters()) for m in (base, model))
    assert model.config.pattern == "AAAAj" * 6
    assert more / plain - 1 == pytest.approx(0.081, abs=1e-3)
