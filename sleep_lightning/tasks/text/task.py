"""Batches of rows of text."""

import random
from array import array
from collections.abc import Sequence
from typing import Literal

import torch

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.task import SPLITS, Split, Task, TaskBatch
from sleep_lightning.tasks.text.layout import Layout, Overlong, Room
from sleep_lightning.tasks.text.row import RowSource, TextRow
from sleep_lightning.tasks.tokenizer import Tokenizer

Asked = Literal["behind", "before", "both"]
"""Where a question stands: behind the context, before it, or one of the two drawn for each row."""
PROBED = 8
"""Rows of each split that are laid out before anything is trained."""


class RowTask(Task):
    """Rows of a source. Context is left of the questions, in windows that sleep; neutral pads fill both up.

    ``slices``: those of rows and questions, and ``before`` (0 or 1) if questions stand in both places.

    Args:
        source: of rows; one with ``ordered`` gives those of validation and test one after the other.
        tokenizer: of all texts.
        room: of a row. A question before the context takes up to a window more than that.
        question: where it stands.
        overlong: what is done with contexts that are too long.
        probe: whether some rows are laid out beforehand; if not, all must fit, and ask nothing between their context.

    Attributes:
        tokenizer: ``encode`` and ``decode`` texts.

    Raises:
        ValueError: for room that is too small, or rows of the source that do not fit it.
    """

    def __init__(
        self,
        source: RowSource,
        tokenizer: Tokenizer,
        room: Room,
        *,
        question: Asked = "behind",
        overlong: Overlong = "refuse",
        probe: bool = True,
    ) -> None:
        if question != "behind":
            room = Room(room.window_tokens, room.windows + 1, room.question_tokens)
        self.source, self.tokenizer, self.room, self.question = source, tokenizer, room, question
        self._layout = Layout(tokenizer, room, overlong)
        self.vocab, self.neutral_pad = tokenizer.vocab, tokenizer.pad
        self.sequence_length = room.context_tokens + room.question_tokens
        self.context_length = room.context_tokens
        if not probe:
            return
        rng = random.Random(0)
        for row in (source.draw(rng, split) for split in SPLITS for _ in range(PROBED)):
            for one in self._places(row):
                # less than all context if there are questions between
                laid = self._layout(one)
                first = self.sequence_length - len(laid) + next(i for i, x in enumerate(laid.labels) if x != IGNORE)
                self.context_length = min(self.context_length, first // room.window_tokens * room.window_tokens)

    def batch(self, batch_size: int, *, seed: int, position: int, split: Split = "train") -> TaskBatch:
        """See ``Task.batch``; held-out rows of a source that is ``ordered`` come one after the other, over and over."""
        ordered = getattr(self.source, "ordered", None)
        if ordered is None or split == "train":
            return super().batch(batch_size, seed=seed, position=position, split=split)
        rows: Sequence[TextRow] = ordered(split, position * batch_size, batch_size)
        return self._batch(rows, random.Random(position))

    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """See ``Task.sample``."""
        rng = random.Random(int(torch.randint(1 << 62, (), generator=generator)))
        return self._batch([self.source.draw(rng, split) for _ in range(batch_size)], rng)

    def _places(self, row: TextRow) -> list[TextRow]:
        """The row with its questions where they may stand."""
        return {"behind": [row], "before": [row.asked_first()], "both": [row, row.asked_first()]}[self.question]

    def _batch(self, rows: Sequence[TextRow], rng: random.Random) -> TaskBatch:
        before = [rng.random() < 0.5 if self.question == "both" else self.question == "before" for _ in rows]
        laid = [self._layout(row.asked_first() if b else row) for row, b in zip(rows, before, strict=True)]
        slices = {name: torch.tensor([row.slices[name] for row in rows]) for name in rows[0].slices}
        if self.question == "both":
            slices["before"] = torch.tensor(before, dtype=torch.int64)
        asked = [row.questions for row in rows]
        width = max(map(len, asked))
        for name in asked[0][0].slices if asked[0] else ():
            tags = [[q.slices[name] for q in questions] for questions in asked]
            slices[name] = torch.tensor([row + [0] * (width - len(row)) for row in tags])
        tokens, labels, answers = (
            torch.full((len(rows), self.sequence_length), empty) for empty in (self.tokenizer.pad, IGNORE, 0)
        )
        for i, one in enumerate(laid):
            place = slice(self.sequence_length - len(one), None)
            for x, values in ((tokens, one.tokens), (labels, one.labels), (answers, one.answers)):
                x[i, place] = torch.frombuffer(array("q", values), dtype=torch.int64)
        return TaskBatch(tokens, labels, slices, answers if width > 1 else None)
