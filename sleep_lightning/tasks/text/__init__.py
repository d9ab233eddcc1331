"""Text as a task: rows of text, made or read, as batches of tokens."""

from sleep_lightning.tasks.text.row import Question, RowSource, TextRow

__all__ = ["Question", "RowSource", "TextRow"]
