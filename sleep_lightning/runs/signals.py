"""Ctrl-C, SIGTERM and the like end a command in good order, with an exit code that says which."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
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


Handlers = dict[signal.Signals, Any]


def install(handler: Callable[[int, FrameType | None], None]) -> Handlers:
    """Handle ``STOP_SIGNALS``; a SIGHUP that is ignored (``nohup``) stays so. Returns the handlers of before."""
    kept = [n for n in STOP_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in kept}


def restore(handlers: Handlers) -> None:
    """Put back what ``install`` has returned, and empty it."""
    while handlers:
        signal.signal(*handlers.popitem())


class SignalsInterrupt:
    """Inside this context the signals of ``STOP_SIGNALS`` raise KeyboardInterrupt; the handlers of before come back
    after it. Contexts nest; threads other than the main one get no signals.

    What is raised in a destructor or an import may be swallowed there: ``check`` raises it again.

    Args:
        once: those behind the first, which is what ``timeout`` sends, interrupt nothing: not what the first one begins.
    """

    _entered: ClassVar[list["SignalsInterrupt"]] = []

    def __init__(self, *, once: bool = False) -> None:
        self.received: int | None = None
        self._holds, self._once = False, once
        self._before: Handlers = {}

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
            self._before = install(self._interrupt)
        self._entered.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.remove(self)
        restore(self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        first, self.received = self.received is None, self.received or number
        if not self._holds and (first or not self._once):
            raise KeyboardInterrupt
