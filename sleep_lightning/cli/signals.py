"""Ctrl-C and SIGTERM end a command in good order."""

import signal
from types import FrameType, TracebackType
from typing import Any


class SignalsInterrupt:
    """Inside this context SIGINT and SIGTERM raise KeyboardInterrupt; the handlers of before come back after it."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the number of the first signal received; SIGINT's if KeyboardInterrupt came without one."""
        return 128 + (self._received or signal.SIGINT)

    def __enter__(self) -> "SignalsInterrupt":
        self._before = {number: signal.signal(number, self._interrupt) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._received = self._received or number
        raise KeyboardInterrupt
