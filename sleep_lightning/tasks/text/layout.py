"""A row of text as tokens: context in whole windows, and what is asked in windows of its own behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.text.row import Question, TextRow
from sleep_lightning.tasks.tokenizer import Tokenizer

Overlong = Literal["refuse", "cut"]


@dataclass(frozen=True)
class Room:
    """How long a row may be.

    Attributes:
        window_tokens: L.
        windows: before the last questions: of context, and of questions between it.
        question_tokens: Q: of the last questions, or of what is predicted of plain text.
    """

    window_tokens: int
    windows: int
    question_tokens: int

    @property
    def context_tokens(self) -> int:
        """Tokens of the windows before the last questions."""
        return self.windows * self.window_tokens


@dataclass
class Laid:
    """Tokens, their labels (aligned to the logits) and the number of the answer that each belongs to."""

    tokens: list[int]
    labels: list[int]
    answers: list[int]

    @classmethod
    def of(cls, tokens: Sequence[int], answer: int = 0) -> "Laid":
        """Without labels."""
        return cls(list(tokens), [IGNORE] * len(tokens), [answer] * len(tokens))

    def __add__(self, other: "Laid") -> "Laid":
        return Laid(self.tokens + other.tokens, self.labels + other.labels, self.answers + other.answers)

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, start: int, stop: int | None = None) -> "Laid":
        """From ``start`` to ``stop``."""
        part = slice(start, stop)
        return Laid(self.tokens[part], self.labels[part], self.answers[part])


class Layout:
    """Lays rows out.

    Args:
        tokenizer: of all texts.
        room: most windows and tokens.
        overlong: a context that is too long is refused, or cut: its end stays.
    """

    def __init__(self, tokenizer: Tokenizer, room: Room, overlong: Overlong = "refuse") -> None:
        self.tokenizer, self.room, self.overlong = tokenizer, room, overlong

    def __call__(self, row: TextRow) -> Laid:
        """A row of ``room.context_tokens`` and ``question_tokens``.

        Pads fill up the first windows on the left, later ones where a run of context or of questions ends.

        Raises:
            ValueError: one sentence that names the row's origin, if it is too long, or there is nothing to predict.
        """
        try:
            return self._asked(row) if row.questions else self._continued(row)
        except ValueError as error:
            raise ValueError(f"{row.origin}: {error}" if row.origin else str(error)) from error

    def _continued(self, row: TextRow) -> Laid:
        """Plain text: of its last tokens each is predicted from those before it, in a window that does not sleep."""
        ids = [*self.tokenizer.bos, *self._encode(row.context, row, first=True)]
        if len(ids) < 2:
            raise ValueError(f"a text of {len(ids)} tokens has none to predict; leave it out")
        ids = ids[: self.room.context_tokens + self.room.question_tokens + 1]
        laid = Laid(ids[:-1], ids[1:], [0] * (len(ids) - 1))
        first = max(0, len(laid) - self.room.question_tokens)
        return self._in_place([Laid.of(laid.tokens[:first])], laid.cut(first))

    def _asked(self, row: TextRow) -> Laid:
        """Context, questions, context, ... to the last question."""
        last = max(i for i, part in enumerate(row.parts) if isinstance(part, Question))
        runs, number, L = [Laid.of(self.tokenizer.bos)], 0, self.room.window_tokens
        for asks, run in groupby(row.parts[: last + 1], key=lambda part: isinstance(part, Question)):
            parts = list(run)
            if not asks:
                ids = self._encode("".join(map(str, parts)), row, first=not runs[1:])
                runs[-1:] = [runs[-1] + Laid.of(ids)] if not runs[1:] else [runs[-1], Laid.of(ids)]
                continue
            asked = [self._question(q, row, number + i) for i, q in enumerate(parts) if isinstance(q, Question)]
            number += len(asked)
            width = min(L, self.room.question_tokens) if parts[-1] is row.parts[last] else L
            head, asked[0] = self._fit(asked[0], width)
            runs[-1] += head
            runs.append(self._packed(asked, width))
        return self._in_place(runs[:-1], runs[-1])

    def _question(self, question: Question, row: TextRow, number: int) -> Laid:
        text = Laid.of(self._encode(question.text + question.cue, row), number)
        answer = self._encode(question.answer, row)
        if not text.tokens or not answer:
            raise ValueError(f"{'a question' if answer else 'an answer'} is empty; give it a text")
        if answer[-1] != self.tokenizer.eos:
            answer.append(self.tokenizer.eos)
        laid = text + Laid.of(answer, number)
        laid.labels[len(text) - 1 : -1] = answer
        return laid

    def _fit(self, asked: Laid, width: int) -> tuple[Laid, Laid]:
        """The beginning of a question that is longer than its window, which joins the context; and the rest."""
        if (labels := sum(label != IGNORE for label in asked.labels)) > width:
            raise ValueError(
                f"an answer of {labels} tokens, its end included, does not fit into the {width} of its window; shorten "
                f"it, or raise task.question_tokens (and task.window_tokens, which is the most)"
            )
        over = max(0, len(asked) - 1 - width)
        return Laid.of(asked.tokens[:over]), asked.cut(over)

    def _packed(self, asked: list[Laid], width: int) -> Laid:
        """Questions in windows, as many in one as fit; the end of the last answer is not read."""
        whole = Laid([], [], [])
        for one in asked:
            if whole.tokens and len(whole) % width + len(one) > width:
                whole += self._pads(-len(whole) % self.room.window_tokens)
            if len(one) - 1 > width:
                raise ValueError(
                    f"a question of {len(one) - 1} tokens behind another one does not fit into the {width} of its "
                    f"window; shorten it, or raise task.question_tokens and task.window_tokens"
                )
            whole += one
        return whole.cut(0, len(whole) - 1)

    def _in_place(self, runs: list[Laid], last: Laid) -> Laid:
        """The runs before the last in whole windows, context behind its pads, questions before theirs."""
        room, before = self.room, Laid([], [], [])
        for i, run in enumerate(runs):
            pads = self._pads(-len(run) % room.window_tokens)
            before += run + pads if i % 2 else pads + run
        spare, left = room.context_tokens - len(before), room.question_tokens - len(last)
        if spare < 0 and self.overlong == "refuse":
            raise ValueError(
                f"{len(before) // room.window_tokens} windows of {room.window_tokens} tokens before the last question "
                f"are more than the {room.windows} there may be; raise task.context_windows, or set task.overlong=cut"
            )
        if left < 0:
            raise ValueError(
                f"{len(last)} tokens of questions and answers do not fit into "
                f"task.question_tokens={room.question_tokens}; raise it"
            )
        return self._pads(spare) + before.cut(max(0, -spare)) + last + self._pads(left)

    def _pads(self, n: int) -> Laid:
        return Laid.of([self.tokenizer.pad] * n)

    def _encode(self, text: str, row: TextRow, *, first: bool = False) -> list[int]:
        """Without pads, which the model would pass over."""
        ids = self.tokenizer.encode(text, first=first, special=row.special)
        return [i for i in ids if i != self.tokenizer.pad]
