"""A row of text as tokens: context in whole windows, and what is asked in windows of its own behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sleep_lightning.refusals import UnusableRow
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
        """A row that ends with ``room.question_tokens``, and begins with its first window: pads stand left of it.

        They also fill up a run of context on the left, and questions behind.

        Raises:
            UnusableRow: one sentence that names the row's origin, if it is too long, or there is nothing to predict.
        """
        try:
            return self._asked(row) if row.questions else self._continued(row)
        except ValueError as error:
            raise UnusableRow(f"{row.origin}: {error}" if row.origin else str(error)) from error

    def _continued(self, row: TextRow) -> Laid:
        """Plain text: of its last tokens each is predicted from those before it, in a window that does not sleep."""
        ids = [*self.tokenizer.bos, *self._encode(row.context, row, first=True)]
        if len(ids) < 2:
            raise ValueError(f"a text of {len(ids)} tokens has none to predict; leave it out")
        ids = ids[: self.room.context_tokens + self.room.question_tokens + 1]
        laid = Laid(ids[:-1], ids[1:], [0] * (len(ids) - 1))
        first = max(0, len(laid) - self.room.question_tokens)
        return self._in_place([self._whole(Laid.of(laid.tokens[:first]))], laid.cut(first))

    def _asked(self, row: TextRow) -> Laid:
        """Runs of context, each in whole windows, and windows of questions."""
        runs, asks, number = [Laid.of(self.tokenizer.bos)], [False], 0
        width = min(self.room.window_tokens, self.room.question_tokens)
        last = max(i for i, part in enumerate(row.parts) if isinstance(part, Question))
        for part in row.parts[: last + 1]:
            if isinstance(part, str):
                first = len(runs) == 1 and len(runs[0]) == len(self.tokenizer.bos)
                new, head = None, Laid.of(self._encode(part, row, first=first))
            else:
                new, number = self._question(part, row, number), number + 1
                if asks[-1] and len(runs[-1]) + len(new) - 1 <= width:  # it fits behind the question before it
                    runs[-1] += new
                    continue
                head, new = self._fit(new, width)
            if asks[-1] and head.tokens:
                runs, asks = [*runs, head], [*asks, False]
            elif head.tokens:
                runs[-1] += head
            if new is not None:
                runs, asks = [*runs, new], [*asks, True]
        # the end of an answer is read where another question follows in its window
        windows = [run.cut(0, -1) if a else self._whole(run) for run, a in zip(runs, asks, strict=True)]
        behind = windows.pop()
        while windows and asks[len(windows) - 1] and self._padded(windows[-1], behind) <= self.room.question_tokens:
            behind = self._whole(windows.pop(), left=False) + behind
        return self._in_place([self._whole(w, left=not a) for w, a in zip(windows, asks, strict=False)], behind)

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

    def _in_place(self, before: list[Laid], behind: Laid) -> Laid:
        """Windows, what lies behind them, and pads."""
        room, context = self.room, sum(before, Laid([], [], []))
        spare = room.context_tokens - len(context)
        if spare < 0 and self.overlong == "refuse":
            raise ValueError(
                f"{len(context) // room.window_tokens} windows of {room.window_tokens} tokens before the last question "
                f"are more than the {room.windows} there may be; raise task.context_windows, or set task.overlong=cut"
            )
        pads = self._pads(room.question_tokens - len(behind))
        return context.cut(max(0, -spare)) + behind + pads

    def _whole(self, run: Laid, *, left: bool = True) -> Laid:
        """Filled up to whole windows: context on the left, questions behind."""
        pads = self._pads(-len(run) % self.room.window_tokens)
        return pads + run if left else run + pads

    def _padded(self, window: Laid, behind: Laid) -> int:
        return len(self._whole(window)) + len(behind)

    def _pads(self, n: int) -> Laid:
        return Laid.of([self.tokenizer.pad] * n)

    def _encode(self, text: str, row: TextRow, *, first: bool = False) -> list[int]:
        """Without pads, which the model would pass over."""
        ids = self.tokenizer.encode(text, first=first, special=row.special)
        return [i for i in ids if i != self.tokenizer.pad]
