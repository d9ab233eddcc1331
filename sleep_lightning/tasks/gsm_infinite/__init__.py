"""GSM-Infinite, clean-room: grade-school problems over a hierarchy of quantities, hidden among distractors."""

from sleep_lightning.tasks.gsm_infinite.config import GSMInfiniteConfig
from sleep_lightning.tasks.gsm_infinite.task import GSMInfinite

__all__ = ["GSMInfinite", "GSMInfiniteConfig"]
