"""What an option meant before it existed, for saved experiments that do not hold it."""

from typing import Any

from sleep_lightning.config.values import PLUGIN_SECTIONS

LEGACY_DEFAULTS: dict[str, Any] = {
    "model.qk_l2norm_eps": None,  # q and k over their norm itself
    "model.embedding_std": None,  # d_model^-1/2
    "model.qk_norm": False,
    "model.max_decay_rate": 16.0,
    "model.gate_proj": "fused",
    "model.residual_scale": 1.0,
}
"""Keys whose default is not what the package did before it had them, with the value that is.

A saved experiment (a run's config.yaml, a checkpoint, a sweep's base) was written with every key of its time: one that
it lacks is younger than it. An old run so resumes with its own numbers, and a new one takes the new default. An option
whose default changes nothing needs no line.
"""


def add_legacy_defaults(values: dict[str, Any]) -> None:
    """Add to a saved experiment's keys and values those that it is too old to hold."""
    for key, value in LEGACY_DEFAULTS.items():
        section = key.partition(".")[0]
        if section not in PLUGIN_SECTIONS or f"{section}.class_path" not in values:
            values.setdefault(key, value)
