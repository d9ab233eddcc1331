"""Who computes for a session: it says what is to be read or slept on, and an engine runs the model."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.sleep import PassRecord, SleepConfig

Observe = Callable[[PassRecord], None]
Stop = Callable[[], bool]


class Engine(Protocol):
    """Of one model and its sleep. Called without gradients, by the thread that works on the session."""

    def read(self, window: OpenWindow, tokens_BT: Tensor) -> tuple[OpenWindow, Tensor]:
        """``OpenWindow.read``."""
        ...

    def close(
        self, config: SleepConfig, window: OpenWindow, observe: Observe | None = None, stop: Stop | None = None
    ) -> Memory:
        """``OpenWindow.close``, with the N of ``config``."""
        ...

    def logits(self, h_BTE: Tensor) -> Tensor:
        """``HybridLM.logits``."""
        ...


class Alone:
    """Runs the model for one session at a time, in the thread that asks.

    Args:
        model: of the session.
        config: its sleep.
    """

    def __init__(self, model: HybridLM, config: SleepConfig) -> None:
        self._model, self._config = model, config

    def read(self, window: OpenWindow, tokens_BT: Tensor) -> tuple[OpenWindow, Tensor]:
        return window.read(self._model, self._config, tokens_BT)

    def close(
        self, config: SleepConfig, window: OpenWindow, observe: Observe | None = None, stop: Stop | None = None
    ) -> Memory:
        return window.close(self._model, config, observe, stop)

    def logits(self, h_BTE: Tensor) -> Tensor:
        return self._model.logits(h_BTE)
