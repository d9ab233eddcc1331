"""Sleep-time consolidation for language models (arXiv:2605.26099): train it, measure it, sweep it.

The public API. Each name is imported when it is first used, so that ``import sleep_lightning`` costs nothing and a
model needs no training framework::

    from sleep_lightning import load_experiment, train

    module = train(load_experiment("conf/rule110.yaml"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleep_lightning.config import Experiment, load_experiment
    from sleep_lightning.model import HybridLM, Memory, ModelConfig, WindowModel
    from sleep_lightning.ops import gated_delta_rule
    from sleep_lightning.pretrained import export, load_pretrained
    from sleep_lightning.session import SleepSession
    from sleep_lightning.sleep import SleepConfig
    from sleep_lightning.tasks import Task, TaskBatch
    from sleep_lightning.training.datamodule import TaskDataModule
    from sleep_lightning.training.module import SleepModule
    from sleep_lightning.training.train import train

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "HybridLM",
    "Memory",
    "ModelConfig",
    "SleepConfig",
    "SleepModule",
    "SleepSession",
    "Task",
    "TaskBatch",
    "TaskDataModule",
    "WindowModel",
    "__version__",
    "export",
    "gated_delta_rule",
    "load_experiment",
    "load_pretrained",
    "train",
]

_ROOMS = {
    "Experiment": "config",
    "HybridLM": "model",
    "Memory": "model",
    "ModelConfig": "model",
    "SleepConfig": "sleep",
    "SleepModule": "training.module",
    "SleepSession": "session",
    "Task": "tasks",
    "TaskBatch": "tasks",
    "TaskDataModule": "training.datamodule",
    "WindowModel": "model",
    "export": "pretrained",
    "gated_delta_rule": "ops",
    "load_experiment": "config",
    "load_pretrained": "pretrained",
    "train": "training.train",
}
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
