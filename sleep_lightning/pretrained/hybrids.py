"""Pretrained hybrids: Qwen3.5 (Gated DeltaNet) and Jet-Nemotron (Jet blocks), between layers of attention."""

import math
from collections.abc import Iterator
from typing import Any

from sleep_lightning.model import ModelConfig
from sleep_lightning.model.jet import REDUCTION
from sleep_lightning.pretrained.decoder import attention_entries, decoder_values, frame_entries, outer_entries
from sleep_lightning.pretrained.entries import TAPS, Entry, gated_queries, generated_taps
from sleep_lightning.pretrained.raw_config import RawConfig

QWEN_LAYERS = {"linear_attention": "G", "full_attention": "A"}
JET_LAYERS = {"jet": "J", "attn": "A", "swa": "A"}


def qwen3_5_values(raw: RawConfig, family: str) -> dict[str, Any]:
    """The keys of ``ModelConfig`` for Qwen3.5's text model."""
    every, layers = raw.get("full_attention_interval", int, 4), raw.get("num_hidden_layers", int)
    kinds = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(layers)]
    values = decoder_values(raw, family) | {
        "pattern": _pattern(raw, kinds, QWEN_LAYERS),
        "head_dim": raw.get("head_dim", int, 256),
        "attention_gate": True,
        "norm_offset": True,
        "gate_proj": "fused",
        "gdn_heads": raw.get("linear_num_key_heads", int),
        "key_dim": raw.get("linear_key_head_dim", int),
        "value_heads": raw.get("linear_num_value_heads", int),
        "value_dim": raw.get("linear_value_head_dim", int),
        "conv_size": raw.get("linear_conv_kernel_dim", int),
    }
    given = raw.section("rope_parameters").get("partial_rotary_factor", float, None)
    return values | {"rope_fraction": given or raw.get("partial_rotary_factor", float, 0.25)}


def jet_values(raw: RawConfig, family: str) -> dict[str, Any]:
    """The keys of ``ModelConfig`` for Jet-Nemotron."""
    special = raw.section("efficient_attention_config")
    jet, width = special.section("jet"), special.section("swa").get("window_size", int, 0)
    jet.refuse_unless("dconv_generator_reduction", REDUCTION)
    key_dim, kinds = jet.get("head_dim", int), raw.get("layer_types", list)
    value_dim = key_dim * jet.get("expand_v", float)
    if not math.isclose(value_dim, round(value_dim), rel_tol=1e-5):
        raise ValueError(f"{jet.where}: expand_v gives a value dim of {value_dim}, which is no whole number")
    windows = [width if kind == "swa" else 0 for kind in kinds if kind != "jet"]
    return decoder_values(raw, family) | {
        "pattern": _pattern(raw, kinds, JET_LAYERS),
        "attention_windows": windows if any(windows) else [],
        "gate_proj": "fused",
        "gdn_heads": jet.get("num_heads", int),
        "key_dim": key_dim,
        "value_dim": round(value_dim),
        "conv_size": jet.get("conv_size", int),
        "output_norm_eps": jet.get("norm_eps", float, 1e-5),
    }


def _pattern(raw: RawConfig, default: list[str], letters: dict[str, str]) -> str:
    kinds, layers = raw.get("layer_types", list, default), raw.get("num_hidden_layers", int)
    unknown = next((kind for kind in kinds if kind not in letters), None)
    if unknown is not None or len(kinds) != layers:
        wrong = f"holds {unknown!r}" if unknown is not None else f"has {len(kinds)} entries for {layers} layers"
        raise ValueError(f"{raw.where}: layer_types {wrong}; supported are {', '.join(letters)}, one a layer")
    return "".join(letters[kind] for kind in kinds)


def qwen3_5_entries(config: ModelConfig, blocks: list[int], prefix: str) -> Iterator[Entry]:
    """Of Qwen3.5's text model."""
    keys, H = config.fast_weight_heads * config.key_dim_per_head, config.value_heads or 0
    values, E = H * config.value_dim_per_head, config.d_model
    yield from outer_entries(config, prefix)
    for layer, block in enumerate(blocks):
        at, ours = f"{prefix}layers.{layer}", f"layers.{block}"
        yield from frame_entries(config, at, ours)
        if config.mixers[block] == "A":
            layout = gated_queries(config.attention_head_dim)
            yield from attention_entries(config, f"{at}.self_attn", f"{ours}.mixer", layout)
            continue
        at, ours = f"{at}.linear_attn", f"{ours}.mixer"
        rows = {"in_proj_qkv": 2 * keys + values, "in_proj_a": H, "in_proj_b": H, "in_proj_z": values}
        yield Entry(f"{ours}.in_proj.weight", {f"{at}.{name}.weight": (n, E) for name, n in rows.items()})
        yield Entry(f"{ours}.conv_weight", {f"{at}.conv1d.weight": (2 * keys + values, 1, config.conv_size)}, TAPS)
        yield from _gates(at, ours, H)
        yield Entry(f"{ours}.norm_weight", {f"{at}.norm.weight": (config.value_dim_per_head,)})
        yield Entry(f"{ours}.out_proj.weight", {f"{at}.out_proj.weight": (E, values)})


def jet_entries(config: ModelConfig, blocks: list[int], prefix: str) -> Iterator[Entry]:
    """Of Jet-Nemotron."""
    H, E, J = config.fast_weight_heads, config.d_model, config.conv_size
    keys, values = H * config.key_dim_per_head, H * config.value_dim_per_head
    hidden = max(1, values // REDUCTION)
    yield from outer_entries(config, prefix)
    for layer, block in enumerate(blocks):
        at, ours = f"{prefix}layers.{layer}", f"layers.{block}"
        yield from frame_entries(config, at, ours)
        at, ours = f"{at}.self_attn", f"{ours}.mixer"
        if config.mixers[block] == "A":
            yield from attention_entries(config, at, ours)
            continue
        generator = f"{at}.dynamic_conv1d.kernel_generator"
        rows = {f"{at}.{name}_proj.weight": (n, E) for name, n in zip("qkabv", (keys, keys, H, H, values), strict=True)}
        rows |= {f"{generator}.w1.weight": (hidden, E), f"{at}.g_proj.weight": (values, E)}
        yield Entry(f"{ours}.in_proj.weight", dict(rows))
        taps = generated_taps(J)
        yield Entry(f"{ours}.tap_proj.weight", {f"{generator}.w2.weight": (values * J, hidden)}, taps)
        yield Entry(f"{ours}.tap_proj.bias", {f"{generator}.w2.bias": (values * J,)}, taps)
        yield from _gates(at, ours, H)
        yield Entry(f"{ours}.norm_weight", {f"{at}.o_norm.weight": (config.value_dim_per_head,)})
        yield Entry(f"{ours}.out_proj.weight", {f"{at}.o_proj.weight": (E, values)})


def _gates(at: str, ours: str, heads: int) -> Iterator[Entry]:
    for name in ("A_log", "dt_bias"):
        yield Entry(f"{ours}.{name}", {f"{at}.{name}": (heads,)})
