"""A task that a YAML names by its class: ``task: {class_path: my_package.Reverse, init_args: {length: 8}}``."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sleep_lightning.config.plugins import Plugin, load_plugin
from sleep_lightning.config.reading import literal
from sleep_lightning.config.search_path import described
from sleep_lightning.tasks import Anchored, Task, TaskConfig
from sleep_lightning.tasks.check import why_not_task


@dataclass
class PluginTask:
    """A ``TaskConfig`` for any task class, or for a config dataclass that is not registered.

    Attributes:
        class_path: import path or registered name of a ``Task``, built with ``init_args``, or of a config dataclass
            with a ``build`` method.
        init_args: plain values.

    Raises:
        ValueError: it cannot be imported, is no task, or does not take these ``init_args``.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    plugin: Plugin = field(init=False, compare=False, repr=False)
    _built: Task | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.plugin = load_plugin("task", {"class_path": self.class_path, "init_args": self.init_args}, "task")

    @property
    def name(self) -> str:
        """The task's ``name``; that of its class if it has none."""
        named = self.init_args.get("name", getattr(self.plugin.target, "name", None))
        return named if isinstance(named, str) else self.class_path.rpartition(".")[2].lower()

    def build(self) -> Task:
        """The task; the same one at every call."""
        if self._built is None:
            target = self.plugin.target
            self._built = self._from_settings() if dataclasses.is_dataclass(target) else self.plugin.build()
            if (wrong := self._why_not(self._built)) is not None:
                self._built = None
                raise ValueError(f"{self.plugin.named} {wrong}")
        return self._built

    @staticmethod
    def _why_not(task: Task) -> str | None:
        try:
            return why_not_task(task)
        except Exception as error:
            return f"cannot be sampled: {described(error)}"

    def _from_settings(self) -> Task:
        settings = self.settings()
        with self.plugin.building():
            return settings.build()

    def settings(self) -> TaskConfig:
        """The config dataclass with its values."""
        node = OmegaConf.merge(OmegaConf.structured(self.plugin.target), literal(self.init_args))
        try:
            return cast(TaskConfig, OmegaConf.to_object(node))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"task.init_args.{error.full_key}: {reason}; give it a value") from error
        except ValueError as error:
            raise ValueError(f"{self.plugin.named}: {' '.join(str(error).split())}") from error
        except Exception as error:
            raise ValueError(f"{self.plugin.named} cannot be built: {described(error)}") from error

    def anchored(self) -> "PluginTask":
        """See ``Anchored``; the same where the class has no such method."""
        if not dataclasses.is_dataclass(self.plugin.target) or not isinstance(settings := self.settings(), Anchored):
            return self
        values = OmegaConf.to_container(OmegaConf.structured(settings.anchored()))
        return dataclasses.replace(self, init_args=cast(dict[str, Any], values))
