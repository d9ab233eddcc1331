"""Algorithm 1 of the paper: read a window, sleep on it, forget it. Sleep is defined here and nowhere else.

A sequence is cut into windows of L tokens. Of each window only the memory survives (under sliding eviction also
the keys and values of the last L - 1 tokens, those of the last pass). A window without any target token sleeps:
the block stack, or its core, runs N times over it in total, each pass fed the hidden states of the pass before and
the memory carried on. A window with targets is read in one pass, and still writes memory.
"""

from sleep_lightning.sleep.alignment import align_windows
from sleep_lightning.sleep.config import Eviction, SleepConfig
from sleep_lightning.sleep.passes import FirstPass, PassRecord, sleep, sleep_after_reading, wake, zero_memory
from sleep_lightning.sleep.retrieval import retrieve
from sleep_lightning.sleep.schedule import Checkpointing, Pass, PlannedWindow, make_schedule, plan_passes
from sleep_lightning.sleep.window_loop import AtBoundary, Observer, run_schedule, run_window_loop
from sleep_lightning.sleep.windows import IGNORE, LARGE_VOCABULARY, Window, is_answer, plan_windows

__all__ = [
    "IGNORE",
    "LARGE_VOCABULARY",
    "AtBoundary",
    "Checkpointing",
    "Eviction",
    "FirstPass",
    "Observer",
    "Pass",
    "PassRecord",
    "PlannedWindow",
    "SleepConfig",
    "Window",
    "align_windows",
    "is_answer",
    "make_schedule",
    "plan_passes",
    "plan_windows",
    "retrieve",
    "run_schedule",
    "run_window_loop",
    "sleep",
    "sleep_after_reading",
    "wake",
    "zero_memory",
]
