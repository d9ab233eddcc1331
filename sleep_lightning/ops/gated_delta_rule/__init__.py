"""The gated delta rule: several exact implementations, the first usable one is taken."""

from sleep_lightning.ops.gated_delta_rule.backends import gated_delta_rule

__all__ = ["gated_delta_rule"]
