"""The gated Hebbian rule: several exact implementations, the first usable one is taken."""

from sleep_lightning.ops.gated_hebbian.backends import gated_hebbian

__all__ = ["gated_hebbian"]
