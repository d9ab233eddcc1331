"""Streaming: a trained model as a memory that one can hold, ask, fork, save and forget."""

from sleep_lightning.session.answer_text import AnswerText
from sleep_lightning.session.audit import AuditFile, AuditLine
from sleep_lightning.session.codec import Codec, Tokenizer
from sleep_lightning.session.core import SessionExpired
from sleep_lightning.session.cost import Cost, Line
from sleep_lightning.session.inspection import Difference, Inspection
from sleep_lightning.session.lru import NoRoom, NoSession
from sleep_lightning.session.pool import SessionPool
from sleep_lightning.session.provenance import ANSWER, BEGIN, UNLABELLED, WindowLine
from sleep_lightning.session.session import SleepSession
from sleep_lightning.session.state import SessionState, Snapshot
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.session.write_policy import WritePolicy

__all__ = [
    "ANSWER",
    "BEGIN",
    "UNLABELLED",
    "AnswerText",
    "AuditFile",
    "AuditLine",
    "Codec",
    "Cost",
    "Difference",
    "Inspection",
    "Line",
    "NoRoom",
    "NoSession",
    "OpenWindow",
    "SessionExpired",
    "SessionPool",
    "SessionState",
    "SleepSession",
    "Snapshot",
    "Tokenizer",
    "WindowLine",
    "WritePolicy",
]
