"""GSM-Infinite, clean-room: grade-school problems over a hierarchy of quantities, hidden among distractors."""

from sleep_lightning.tasks.gsm_infinite.task import GSMInfinite, GSMInfiniteConfig

__all__ = ["GSMInfinite", "GSMInfiniteConfig"]
