"""The published configs of full-size models, and directories that hold these and a tokenizer, without weights."""

import json
import shutil
from pathlib import Path
from typing import Any

from sleep_lightning.tasks.suites.needle import NeedleConfig, NeedleSource
from tests.tasks.text.tokenizers import save

OURO: dict[str, Any] = {
    "model_type": "ouro",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "hidden_act": "silu",
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "vocab_size": 49152,
    "tie_word_embeddings": False,
    "total_ut_steps": 4,
    "layer_types": ["full_attention"] * 24,
    "sliding_window": None,
    "use_sliding_window": False,
}
JET: dict[str, Any] = {
    "model_type": "jet_nemotron",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rope_theta": 1e6,
    "rope_scaling": None,
    "rms_norm_eps": 1e-6,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_window_layers": 28,
    "layer_types": ["jet"] * 14 + ["attn"] + ["jet"] * 4 + ["attn", "swa", "swa"] + ["jet"] * 6,
    "efficient_attention_config": {
        "jet": {
            "conv_size": 4,
            "dconv_generator_reduction": 8,
            "dconv_implementation": "triton",
            "expand_v": 2.6666666667,
            "head_dim": 96,
            "mode": "chunk",
            "norm_eps": "1e-5",
            "num_heads": 12,
        },
        "swa": {"window_size": 1152},
    },
}
QWEN: dict[str, Any] = {
    "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text",
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4,
        "rms_norm_eps": 1e-6,
        "vocab_size": 248320,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_theta": 1e7, "rope_type": "default", "partial_rotary_factor": 0.25},
    },
}
SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_act": "silu",
    "rope_theta": 1e5,
    "rms_norm_eps": 1e-5,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
MODELS = {"SmolLM2-135M-Instruct": SMOLLM2, "Qwen3.5-0.8B": QWEN, "Ouro-1.4B": OURO, "Jet-Nemotron-2B": JET}
"""By the names of the directories in conf/."""


def write_configs(folder: Path, *, tokenizer: bool = True) -> None:
    """``folder/weights`` with a directory for each: ``config.json`` and, by default, a small tokenizer."""
    for name, config in MODELS.items():
        place = folder / "weights" / name
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(config))
    if tokenizer:
        # of needles every word is a token, as it is to a vocabulary of full size
        words = [f" {word}" for text in NeedleSource.words(NeedleConfig()) for word in text.split()]
        saved = Path(save("bpe", folder, words * 3, 2000))
        for name in MODELS:
            shutil.copytree(saved, folder / "weights" / name, dirs_exist_ok=True)
        shutil.rmtree(saved)
