"""The gated Hebbian rule: one public door, several exact implementations behind it."""

from sleep_lightning.ops.gated_hebbian.backends import gated_hebbian

__all__ = ["gated_hebbian"]
