"""Decoders of attention alone: llama, mistral, qwen2, qwen3, and Ouro, whose norms are sandwiches."""

from collections.abc import Iterator
from typing import Any

from sleep_lightning.model import ModelConfig
from sleep_lightning.pretrained.entries import ROWS, Entry, Layout, Shape
from sleep_lightning.pretrained.raw_config import RawConfig

QKV_BIAS, QK_NORM = ("qwen2", "jet_nemotron"), ("qwen3", "qwen3_5")
"""Families by what their attention has; it is not in their ``config.json``."""


def decoder_values(raw: RawConfig, family: str) -> dict[str, Any]:
    """The keys of ``ModelConfig`` that the families have in common."""
    for name, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if not (name == "attention_bias" and family == "qwen2"):
            raw.refuse_unless(name, only)
    layers = raw.get("num_hidden_layers", int)
    return {
        "pattern": "A" * layers,
        "d_model": raw.get("hidden_size", int),
        "d_ff": raw.get("intermediate_size", int),
        "n_heads": raw.get("num_attention_heads", int),
        "kv_heads": raw.get("num_key_value_heads", int, None),
        "head_dim": raw.get("head_dim", int, None),
        "attention_windows": sliding_windows(raw, family, layers),
        "qkv_bias": family in QKV_BIAS,
        "qk_norm": family in QK_NORM,
        "norm_eps": raw.get("rms_norm_eps", float, 1e-6),
        "norm_placement": "sandwich" if family == "ouro" else "pre",
        "tie_embeddings": raw.get("tie_word_embeddings", bool, False),
        "vocab_size": raw.get("vocab_size", int),
        "residual_scale": 1.0,
        **raw.rope(),
    }


def sliding_windows(raw: RawConfig, family: str, layers: int) -> list[int]:
    """Tokens that each layer sees, 0 for all; empty if all see all."""
    width = raw.get("sliding_window", int, 0)
    if not width or not raw.get("use_sliding_window", bool, family == "mistral"):
        return []
    first = 0 if family == "mistral" else raw.get("max_window_layers", int, 0)
    kinds = raw.get("layer_types", list, ["full_attention"] * first + ["sliding_attention"] * (layers - first))
    windows = [width if kind == "sliding_attention" else 0 for kind in kinds]
    return windows if any(windows) else []


def decoder_entries(config: ModelConfig, blocks: list[int], prefix: str) -> Iterator[Entry]:
    """Of the families above, block by block."""
    yield from outer_entries(config, prefix)
    for layer, block in enumerate(blocks):
        at, ours = f"{prefix}layers.{layer}", f"layers.{block}"
        yield from attention_entries(config, f"{at}.self_attn", f"{ours}.mixer")
        yield from frame_entries(config, at, ours)


def outer_entries(config: ModelConfig, prefix: str) -> Iterator[Entry]:
    """Embedding, final norm and, unless it is tied, head."""
    rows = (config.vocab_size or 0, config.d_model)
    yield Entry("embedding.weight", {f"{prefix}embed_tokens.weight": rows})
    yield Entry("norm.weight", {f"{prefix}norm.weight": (config.d_model,)})
    if not config.tie_embeddings:
        yield Entry("head.weight", {"lm_head.weight": rows})


def attention_entries(config: ModelConfig, at: str, ours: str, layout: Layout = ROWS) -> Iterator[Entry]:
    """Projections, biases and norms of a layer of attention; the queries' rows hold the gate's too if there is one."""
    D, E = config.attention_head_dim, config.d_model
    queries, keys = config.n_heads * D, (config.kv_heads or config.n_heads) * D
    rows = {"q_proj": queries * (2 if config.attention_gate else 1), "k_proj": keys, "v_proj": keys}
    yield Entry(f"{ours}.in_proj.weight", {f"{at}.{name}.weight": (n, E) for name, n in rows.items()}, layout)
    if config.qkv_bias:
        yield Entry(f"{ours}.in_proj.bias", {f"{at}.{name}.bias": (n,) for name, n in rows.items()})
    yield Entry(f"{ours}.out_proj.weight", {f"{at}.o_proj.weight": (E, queries)})
    if config.qk_norm:
        for name in ("q_norm", "k_norm"):
            yield Entry(f"{ours}.{name}.weight", {f"{at}.{name}.weight": (D,)})


def frame_entries(config: ModelConfig, at: str, ours: str) -> Iterator[Entry]:
    """A layer's MLP (gate and up projection side by side, and down) and its norms."""
    up: Shape = (config.mlp_width, config.d_model)
    yield Entry(f"{ours}.mlp.in_proj.weight", {f"{at}.mlp.gate_proj.weight": up, f"{at}.mlp.up_proj.weight": up})
    yield Entry(f"{ours}.mlp.out_proj.weight", {f"{at}.mlp.down_proj.weight": up[::-1]})
    norms = {"input_layernorm": "mixer_norm", "post_attention_layernorm": "mlp_norm"}
    if config.norm_placement == "sandwich":
        norms |= {"input_layernorm_2": "mixer_out_norm", "post_attention_layernorm_2": "mlp_out_norm"}
    for theirs, name in norms.items():
        yield Entry(f"{ours}.{name}.weight", {f"{at}.{theirs}.weight": (config.d_model,)})
