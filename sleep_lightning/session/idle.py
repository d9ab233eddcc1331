"""Sleeping while nobody asks: in a thread, pass by pass, making way for whoever has something to read."""

import itertools
import logging
import threading
import time
import weakref
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sleep_lightning.session.session import SleepSession

logger = logging.getLogger(__name__)
LEAST_WAIT = 0.01
"""Seconds until a session that was busy is looked at again."""
PAUSE = 1.0
"""Seconds after a sleep that failed: the audit of all sessions may have no space."""


class IdleSleeper:
    """One thread that closes the windows of all sessions of a process that have not been used for a while.

    It runs as long as there is a window to be closed, and lets go of a session that nobody else holds.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, weakref.ref[SleepSession]]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, session: "SleepSession", at: float) -> None:
        """Look at a session at a time (``time.monotonic``), unless it is being watched already."""
        with self._changed:
            if not session._watched:
                session._watched = True
                at = max(at, time.monotonic() + LEAST_WAIT)
                heappush(self._due, (at, next(self._order), weakref.ref(session)))
                if self._thread is None or not self._thread.is_alive():  # a forked process has no threads
                    self._thread = threading.Thread(target=self._run, name="idle sleep", daemon=True)
                    self._thread.start()
                self._changed.notify()

    def _run(self) -> None:
        while (session := self._next()) is not None:
            try:
                if (at := session._sleep_idly()) is not None:
                    self.watch(session, at)
            except Exception as error:  # of the audit, or of the model: it is tried again, as after any use
                logger.warning("session %s could not sleep: %s: %s", session.id, type(error).__name__, error)
                time.sleep(PAUSE)
            del session

    def _next(self) -> "SleepSession | None":
        """The next session that is due; None: no session is left."""
        with self._changed:
            while self._due:
                if (left := self._due[0][0] - time.monotonic()) > 0:
                    self._changed.wait(left)
                elif (session := heappop(self._due)[2]()) is not None:
                    session._watched = False
                    return session
            self._thread = None
            return None


SLEEPER = IdleSleeper()
