"""The suites that people compare memories on, generated from their public recipes."""

from sleep_lightning.tasks.suites.mqar import MQAR, MQARConfig

__all__ = ["MQAR", "MQARConfig"]
