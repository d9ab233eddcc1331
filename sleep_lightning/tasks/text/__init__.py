"""Text as a task: rows of text, made or read, as batches of tokens."""

from sleep_lightning.tasks.text.config import TextConfig
from sleep_lightning.tasks.text.layout import Room
from sleep_lightning.tasks.text.row import Question, RowSource, TextRow
from sleep_lightning.tasks.text.task import RowTask

__all__ = ["Question", "Room", "RowSource", "RowTask", "TextConfig", "TextRow"]
