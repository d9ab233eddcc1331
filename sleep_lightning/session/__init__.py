"""Streaming: a trained model as a memory that one can hold, ask, fork, save and forget."""

from sleep_lightning.session.cost import Cost, Line
from sleep_lightning.session.lru import NoRoom, NoSession
from sleep_lightning.session.pool import SessionPool
from sleep_lightning.session.session import SleepSession, Snapshot, Tokenizer
from sleep_lightning.session.state import SessionState
from sleep_lightning.session.window import OpenWindow

__all__ = [
    "Cost",
    "Line",
    "NoRoom",
    "NoSession",
    "OpenWindow",
    "SessionPool",
    "SessionState",
    "SleepSession",
    "Snapshot",
    "Tokenizer",
]
