"""Ctrl-C, SIGTERM and the like end a command in good order, with an exit code that says which."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType, TracebackType
from typing import Any, ClassVar

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopReason(IntEnum):
    """Why a run that can be resumed has stopped; the value is the exit code of ``fit``."""

    SIGINT = 128 + signal.SIGINT
    SIGTERM = 128 + signal.SIGTERM
    SIGUSR1 = 128 + signal.SIGUSR1
    SIGHUP = 128 + signal.SIGHUP
    TIME_LIMIT = os.EX_TEMPFAIL


class SignalsInterrupt:
    """Inside this context the signals of ``STOP_SIGNALS`` raise KeyboardInterrupt; the handlers of before come back
    after it. Contexts nest. A SIGHUP that is ignored (``nohup``) stays so; threads other than the main one get none.

    What is raised in a destructor or an import may be swallowed there: ``check`` raises it again.
    """

    _entered: ClassVar[list["SignalsInterrupt"]] = []

    def __init__(self) -> None:
        self.received: int | None = None
        self._holds = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the number of the first signal received; SIGINT's if KeyboardInterrupt came without one."""
        return 128 + (self.received or signal.SIGINT)

    @classmethod
    def check(cls) -> None:
        """Raise KeyboardInterrupt if a context that is entered has received a signal."""
        if any(one.received for one in cls._entered):
            raise KeyboardInterrupt

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
        self._entered.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.remove(self)
        while self._before:
            signal.signal(*self._before.popitem())

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if not self._holds:
            raise KeyboardInterrupt
