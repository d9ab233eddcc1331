"""Ctrl-C, SIGTERM and the like end a command in good order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from sleep_lightning.runs.stop_reason import STOP_SIGNALS


class SignalsInterrupt:
    """Inside this context the signals of ``STOP_SIGNALS`` raise KeyboardInterrupt; the handlers of before come back
    after it. Contexts nest. A SIGHUP that is ignored (``nohup``) stays so; threads other than the main one get none."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._holds = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the number of the first signal received; SIGINT's if KeyboardInterrupt came without one."""
        return 128 + (self.received or signal.SIGINT)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it a signal is noted, and interrupts nothing."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False

    def __enter__(self) -> "SignalsInterrupt":
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if not self._holds:
            raise KeyboardInterrupt
