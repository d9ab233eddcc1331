"""The shipped tasks, by the names that experiments give them."""

from sleep_lightning.config.plugins import find_plugin
from sleep_lightning.tasks import TASKS, DepoConfig, GSMInfiniteConfig, Rule110Config
from sleep_lightning.tasks.suites import (
    ArticlesConfig,
    MQARConfig,
    NeedleConfig,
    StoriesConfig,
    TranscriptsConfig,
    VariableTrackingConfig,
)
from sleep_lightning.tasks.text import TextConfig


def test_shipped_tasks_are_registered_under_their_names() -> None:
    found = {name: find_plugin("task", name, "task.name").target for name in TASKS}
    assert found == {
        "rule110": Rule110Config,
        "depo": DepoConfig,
        "gsm_infinite": GSMInfiniteConfig,
        "text": TextConfig,
        "articles": ArticlesConfig,
        "mqar": MQARConfig,
        "needle": NeedleConfig,
        "variable_tracking": VariableTrackingConfig,
        "stories": StoriesConfig,
        "transcripts": TranscriptsConfig,
    }
