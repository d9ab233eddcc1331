"""A model that a YAML names by its class: ``model: {class_path: my_package.MyLM, init_args: {width: 64}}``."""

from dataclasses import dataclass, field
from typing import Any, NoReturn

from sleep_lightning.config.plugins import Plugin, load_plugin
from sleep_lightning.model import WindowModel, why_not_window_model


@dataclass
class PluginModel:
    """In place of a ``ModelConfig``: any class or function that makes a ``WindowModel``.

    Attributes:
        class_path: import path or registered name; called with ``vocab_size``, ``neutral_pad`` (if it takes that) and
            ``init_args``.
        init_args: plain values.

    Raises:
        ValueError: it cannot be imported, is no model, or does not take these ``init_args``.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    plugin: Plugin = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.plugin = load_plugin("model", {"class_path": self.class_path, "init_args": self.init_args}, "model")

    def build(self, vocab_size: int, neutral_pad: int | None) -> WindowModel:
        """A new model. Raises ValueError: it cannot be built, or is no ``WindowModel``."""
        model: WindowModel = self.plugin.build(vocab_size=vocab_size, neutral_pad=neutral_pad)
        if (reason := why_not_window_model(model)) is not None:
            raise ValueError(f"{self.plugin.named}: {reason}")
        if model.neutral_pad != neutral_pad:
            raise ValueError(
                f"{self.plugin.named} has neutral_pad={model.neutral_pad} where the task's padding is {neutral_pad}; "
                f"take neutral_pad as an argument and leave out those tokens, or choose a task without such padding"
            )
        return model

    @property
    def described(self) -> str:
        """For people: the class."""
        return self.class_path.rpartition(".")[2]

    @property
    def attention_only(self) -> str:
        self._no_pattern()

    @property
    def period(self) -> str:
        self._no_pattern()

    def _no_pattern(self) -> NoReturn:
        raise ValueError(f"{self.plugin.named} has no model.pattern, which this changes; use the hybrid model")
