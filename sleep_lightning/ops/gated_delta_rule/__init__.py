"""The gated delta rule: one public door, several exact implementations behind it."""

from sleep_lightning.ops.gated_delta_rule.backends import available_backends, gated_delta_rule, select_backend

__all__ = ["available_backends", "gated_delta_rule", "select_backend"]
