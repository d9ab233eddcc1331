"""Tasks: generators of token windows. A new task is one file (anywhere), one YAML and one test class."""

from sleep_lightning.tasks.depo import Depo, DepoConfig
from sleep_lightning.tasks.gsm_infinite import GSMInfinite, GSMInfiniteConfig
from sleep_lightning.tasks.rule110 import Rule110, Rule110Config
from sleep_lightning.tasks.task import (
    Anchored,
    Baselines,
    Split,
    Task,
    TaskBatch,
    TaskConfig,
    baselines,
    by_answer,
    random_seed,
)

TASKS = {
    "rule110": "sleep_lightning.tasks.rule110.Rule110Config",
    "depo": "sleep_lightning.tasks.depo.DepoConfig",
    "gsm_infinite": "sleep_lightning.tasks.gsm_infinite.task.GSMInfiniteConfig",
    "text": "sleep_lightning.tasks.text.config.TextConfig",
    "articles": "sleep_lightning.tasks.suites.articles.ArticlesConfig",
    "mqar": "sleep_lightning.tasks.suites.mqar.MQARConfig",
    "needle": "sleep_lightning.tasks.suites.needle.NeedleConfig",
    "variable_tracking": "sleep_lightning.tasks.suites.variable_tracking.VariableTrackingConfig",
    "stories": "sleep_lightning.tasks.suites.stories.StoriesConfig",
    "transcripts": "sleep_lightning.tasks.suites.transcripts.TranscriptsConfig",
}
"""Import paths of the built-in task configs by ``task.name``; packages add theirs as entry points."""

__all__ = [
    "TASKS",
    "Anchored",
    "Baselines",
    "Depo",
    "DepoConfig",
    "GSMInfinite",
    "GSMInfiniteConfig",
    "Rule110",
    "Rule110Config",
    "Split",
    "Task",
    "TaskBatch",
    "TaskConfig",
    "baselines",
    "by_answer",
    "random_seed",
]
