"""Options of pretrained blocks, several at once."""

STYLES: dict[str, dict[str, object]] = {
    "qwen3_5": {
        "pattern": "GAGA",
        "n_heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "attention_gate": True,
        "rope_fraction": 0.25,
        "norm_offset": True,
        "gdn_heads": 2,
        "key_dim": 4,
        "value_heads": 4,
        "value_dim": 6,
        "gate_proj": "fused",
    },
    "jet": {
        "pattern": "JAJA",
        "kv_heads": 1,
        "qkv_bias": True,
        "attention_windows": [0, 3],
        "output_norm_eps": 1e-2,
        "key_dim": 4,
        "value_dim": 5,
    },
    "ouro": {"pattern": "AAgAAj", "norm_placement": "sandwich", "qk_norm": False},
    "llama": {
        "pattern": "AgAh",
        "kv_heads": 1,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "vocab_size": 11,
        "value_heads": 4,
    },
}
