"""The suites that people compare memories on, generated from their public recipes."""

from sleep_lightning.tasks.suites.articles import ArticlesConfig
from sleep_lightning.tasks.suites.mqar import MQAR, MQARConfig
from sleep_lightning.tasks.suites.needle import NeedleConfig
from sleep_lightning.tasks.suites.stories import StoriesConfig
from sleep_lightning.tasks.suites.transcripts import TranscriptsConfig
from sleep_lightning.tasks.suites.variable_tracking import VariableTrackingConfig

__all__ = [
    "MQAR",
    "ArticlesConfig",
    "MQARConfig",
    "NeedleConfig",
    "StoriesConfig",
    "TranscriptsConfig",
    "VariableTrackingConfig",
]
