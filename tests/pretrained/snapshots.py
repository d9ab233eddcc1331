"""Tiny random models of the families that transformers has, written by it."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

VOCAB = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-3,
}
"""An epsilon that matters."""
ROPE = {"rope_theta": 1e5, "rope_type": "default"}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
QWEN3_5 = {
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rope_parameters": ROPE}),
    "llama tied": ("Llama", {"rope_parameters": ROPE, "tie_word_embeddings": True}),
    "llama3 rope": (
        "Llama",
        {"rope_parameters": LLAMA3 | {"rope_theta": 1e4, "original_max_position_embeddings": 32}, "head_dim": 16},
    ),
    "linear rope": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "yarn rope": (
        "Qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 64,
            },
            "head_dim": 16,
        },
    ),
    "mistral": ("Mistral", {"rope_parameters": ROPE, "sliding_window": 5}),
    "qwen2": ("Qwen2", {"rope_parameters": ROPE}),
    "qwen2 sliding": (
        "Qwen2",
        {"rope_parameters": ROPE, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3", {"rope_parameters": ROPE, "head_dim": 16}),
    "qwen3_5": ("Qwen3_5", QWEN3_5),
}


def write(kind: str, folder: Path, **changes: Any) -> nn.Module:
    """A model in eval mode, saved to ``folder``: weights of a size at which norms and gates matter."""
    name, options = KINDS[kind]
    config_class = getattr(transformers, f"{name}TextConfig" if name == "Qwen3_5" else f"{name}Config")
    config = config_class(**(SIZES | options | changes))
    generator = torch.Generator().manual_seed(0)
    model: nn.Module = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.3 * noise if parameter.dim() == 1 else 0.2 * noise)
    model.save_pretrained(folder)  # type: ignore[operator]
    return model


def tokens(B: int, T: int) -> torch.Tensor:
    """Random token ids."""
    return torch.randint(0, VOCAB, (B, T), generator=torch.Generator().manual_seed(1))
