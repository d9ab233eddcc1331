"""Sleeping while nobody asks: in a thread, pass by pass, making way for whoever has something to read."""

import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sleep_lightning.session.session import SleepSession

LEAST_WAIT = 0.01
"""Seconds until a session that was busy is looked at again."""


class IdleSleeper:
    """The thread that closes a session's window once the session has not been used for a while.

    It lets go of a session that nobody else holds.

    Args:
        session: that sleeps.
        idle_after: seconds without a call.
    """

    def __init__(self, session: "SleepSession", idle_after: float) -> None:
        self._session, self._idle_after = weakref.ref(session), idle_after
        self._touched, self._closed = threading.Event(), threading.Event()
        weakref.finalize(session, self.close)
        self._thread = threading.Thread(target=self._run, name="idle sleep", daemon=True)
        self._thread.start()

    def touch(self) -> None:
        """Something has been read."""
        self._touched.set()

    def close(self) -> None:
        """End the thread, at the next boundary of a pass."""
        self._closed.set()
        self._touched.set()

    def _run(self) -> None:
        while self._touched.wait() and not self._closed.is_set():
            self._touched.clear()
            while (seconds := self._seconds_left()) is not None:
                if self._closed.wait(max(seconds, LEAST_WAIT)):
                    return

    def _seconds_left(self) -> float | None:
        """Until the session will have been idle for long enough; None: it has, and has slept, or it is gone."""
        session = self._session()
        if session is None:
            return None
        left = session.last_use + self._idle_after - time.monotonic()
        if left <= 0 and session._sleep_idly(self._idle_after, self._closed.is_set):
            return None
        return left
