"""The gated delta rule: several exact implementations, the first usable one is taken."""

from sleep_lightning.ops.gated_delta_rule.backends import available_backends, gated_delta_rule, select_backend

__all__ = ["available_backends", "gated_delta_rule", "select_backend"]
