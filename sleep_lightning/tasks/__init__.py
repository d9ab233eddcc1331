"""Tasks: generators of token windows. A new task is one file, one line in ``TASKS``, one YAML, one test class."""

from sleep_lightning.tasks.depo import Depo, DepoConfig
from sleep_lightning.tasks.gsm_infinite import GSMInfinite, GSMInfiniteConfig
from sleep_lightning.tasks.rule110 import Rule110, Rule110Config
from sleep_lightning.tasks.task import Baselines, Split, Task, TaskBatch, TaskConfig, baselines, by_answer, random_seed

TASKS: dict[str, type[TaskConfig]] = {
    "rule110": Rule110Config,
    "depo": DepoConfig,
    "gsm_infinite": GSMInfiniteConfig,
}
"""Task configs by ``task.name``."""

__all__ = [
    "TASKS",
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
