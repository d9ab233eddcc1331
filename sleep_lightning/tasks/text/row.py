"""A row of text: what is read, what is asked, and what is answered, before any of it is tokens."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from sleep_lightning.tasks.task import Split


@dataclass(frozen=True)
class Question:
    """A question and its answer. Texts are joined as they are: each begins with its own space or line break.

    Attributes:
        text: what is asked, "\\nQuestion: Where is Ann?". It begins a window of its own, or stands before all context
            (``task.question``).
        answer: what the model has to say, " the garden". Its tokens carry the labels, and the end token behind them.
        slices: difficulty of this question, name -> whole number (all questions of a task have the same names).
        cue: what stands right before the answer, wherever the question stands.
    """

    text: str
    answer: str
    slices: Mapping[str, int] = field(default_factory=dict)
    cue: str = "\nAnswer:"


@dataclass(frozen=True)
class TextRow:
    """What the model reads, in order.

    Attributes:
        parts: context (``str``) and questions. Context is evicted before the question behind it; questions may stand
            together at the end, or between pieces of context. A row without questions is plain text, whose last tokens
            carry the labels.
        slices: difficulty of the row, name -> whole number (all rows of a task have the same names).
        special: names of special tokens in the texts ("<|im_end|>") are these tokens, not text.
        origin: where it was read, for messages ("notes.jsonl, line 7").
    """

    parts: tuple[str | Question, ...]
    slices: Mapping[str, int] = field(default_factory=dict)
    special: bool = False
    origin: str = ""

    @property
    def context(self) -> str:
        """All that is read and not asked."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def questions(self) -> tuple[Question, ...]:
        """In order."""
        return tuple(part for part in self.parts if isinstance(part, Question))

    def asked_first(self) -> "TextRow":
        """The same with all that is asked in front of the context, and only the cues behind it."""
        asked = "".join(f"{q.text.lstrip()}\n" for q in self.questions)
        parts = (replace(part, text="") if isinstance(part, Question) else part for part in self.parts)
        return replace(self, parts=(asked, *parts))


class RowSource(Protocol):
    """Where rows come from: a generator, or files."""

    def draw(self, rng: random.Random, split: Split) -> TextRow:
        """A row of a split. All randomness comes from ``rng``; the splits share no evidence."""
