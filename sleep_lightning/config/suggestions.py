"""What to do about a key that an experiment does not have."""

import dataclasses
from typing import Any

from sleep_lightning.config.checks import did_you_mean
from sleep_lightning.config.plugins import find_plugin
from sleep_lightning.tasks import TASKS

DEFAULT = "task.name=rule110"
"""The task of an experiment that names none."""


def suggest(key: str, known: list[str]) -> str:
    """The closest key, or where all are."""
    same_name = (f"did you mean {k}?" for k in known if k.endswith(f".{key.split('.')[-1]}"))
    return did_you_mean(key, known) or next(same_name, "python -m sleep_lightning help all lists all keys")


def of_another_task(key: str, values: dict[str, Any]) -> str | None:
    """What to do with a key of a registered task that is not the experiment's."""
    section, _, name = key.partition(".")
    for task in TASKS if section == "task" else ():
        target = find_plugin("task", task, "task.name").target
        if dataclasses.is_dataclass(target) and name in (field.name for field in dataclasses.fields(target)):
            ours = next(
                (f"{one}={values[one]}" for one in ("task.class_path", "task.name") if values.get(one)), DEFAULT
            )
            return f"it is one of task.name={task}; with {ours}, drop it, or use a --config of that task"
    return None
