"""Why a run stops before its end, and with which exit code."""

import os
import signal
from enum import IntEnum

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopReason(IntEnum):
    """Why a run that can be resumed has stopped; the value is the exit code of ``fit``."""

    SIGINT = 128 + signal.SIGINT
    SIGTERM = 128 + signal.SIGTERM
    SIGUSR1 = 128 + signal.SIGUSR1
    SIGHUP = 128 + signal.SIGHUP
    TIME_LIMIT = os.EX_TEMPFAIL
