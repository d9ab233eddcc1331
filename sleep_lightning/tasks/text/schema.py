"""What a record of a file says: a context with questions, a conversation, or plain text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sleep_lightning.tasks.text.row import Question, TextRow

FORMATS = "messages, text, or question and answer (and context)"
Chat = Callable[[Sequence[dict[str, str]], bool], str | None]
"""Messages as text, up to where an answer would begin if the second argument is true; None: it cannot be said so."""


@dataclass(frozen=True)
class Schema:
    """How records become rows.

    Attributes:
        question: template of what is asked, with ``{question}``.
        cue: what stands before an answer.
        answer: template of an answer, with ``{answer}``.
        slices: names of whole numbers in the record by which scores are reported.
        chat: the tokenizer's own format of messages, if it has one.
    """

    question: str
    cue: str
    answer: str
    slices: tuple[str, ...] = ()
    chat: Chat | None = None

    def evidence(self, record: Any) -> str:
        """What the answers of a record follow from; rows that share it are in one split.

        Raises:
            ValueError: the record is none of the formats.
        """
        kind = self._kind(record)
        for name in self.slices:
            if not isinstance(record.get(name), int) or isinstance(record[name], bool):
                raise ValueError(f"{name!r} of task.slices is {'not a whole number' if name in record else 'missing'}")
        if kind == "messages":
            return "\n".join(m["content"] for m in _messages(record) if m["role"] != "assistant")
        if kind == "text":
            return _string(record, "text")
        asked, _ = _questions(record)
        return _context(record) or "\n".join(asked)

    def row(self, record: Any, origin: str) -> TextRow:
        """The row of a record that ``evidence`` has accepted."""
        slices = {name: int(record[name]) for name in self.slices}
        kind = self._kind(record)
        if kind == "messages":
            parts, special = self._conversation(_messages(record))
            return TextRow(parts, slices, special, origin)
        if kind == "text":
            return TextRow((record["text"],), slices, origin=origin)
        asked = (
            Question(self.question.replace("{question}", q), self.answer.replace("{answer}", a), cue=self.cue)
            for q, a in zip(*_questions(record), strict=True)
        )
        return TextRow((*filter(None, (_context(record),)), *asked), slices, origin=origin)

    @staticmethod
    def _kind(record: Any) -> str:
        if not isinstance(record, dict):
            raise ValueError(f"a JSON object was expected, not {type(record).__name__}")
        for kind in ("messages", "text"):
            if record.get(kind) is not None:
                return kind
        for name in ("question", "answer"):
            if record.get(name) is None:
                raise ValueError(f"{name!r} is missing; a record has {FORMATS}")
        return "question"

    def _conversation(self, messages: list[dict[str, str]]) -> tuple[tuple[str | Question, ...], bool]:
        """What the assistant says is answers, all else questions or, before other messages, context."""
        if self.chat is not None and (templated := _templated(messages, self.chat)) is not None:
            return templated, True
        parts, asked = list[str | Question](), ""
        for message in messages:
            if message["role"] == "assistant" and message["content"].strip():
                parts.append(Question(asked, f" {message['content'].strip()}", cue="\nassistant:"))
                asked = ""
                continue
            if asked:
                parts.append(asked)
            asked = f"\n{message['role']}: {message['content']}"
        return tuple(parts), False


def _templated(messages: list[dict[str, str]], chat: Chat) -> tuple[str | Question, ...] | None:
    """In the tokenizer's format; None if what it makes of more messages does not continue what it made of fewer."""
    parts, before, asked = list[str | Question](), "", ""
    for i, message in enumerate(messages):
        answers = message["role"] == "assistant"
        prompt = chat(messages[:i], True) if answers else before
        whole = chat(messages[: i + 1], False)
        if prompt is None or whole is None or not (prompt.startswith(before) and whole.startswith(prompt)):
            return None
        if answers:
            parts.append(Question(asked, whole[len(prompt) :].rstrip("\n"), cue=prompt[len(before) :]))
            # what stands between an answer and the next message belongs to that
            before, asked = prompt + parts[-1].answer, ""  # type: ignore[union-attr]
            continue
        if asked:
            parts.append(asked)
        before, asked = whole, whole[len(before) :]
    return tuple(parts)


def _context(record: dict[str, Any]) -> str:
    """Empty if there is none."""
    return "" if record.get("context") is None else _string(record, "context")


def _string(record: dict[str, Any], name: str) -> str:
    if not isinstance(record[name], str):
        raise ValueError(f"{name!r} is {type(record[name]).__name__}, not text")
    return record[name]


def _questions(record: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Texts of one question or several, and of their answers (numbers are fine)."""
    found = []
    for name in ("question", "answer"):
        texts = record[name] if isinstance(record[name], list) else [record[name]]
        if not texts or not all(map(_can_be_said, texts)):
            raise ValueError(f"{name!r} must be a text (or a number), or a list of them")
        found.append([str(x) for x in texts])
    if len(found[0]) != len(found[1]):
        raise ValueError(f"{len(found[0])} questions have {len(found[1])} answers; give each one")
    if not all(map(str.strip, found[1])):
        raise ValueError("an answer is empty; give it a text")
    return found[0], found[1]


def _can_be_said(x: object) -> bool:
    """Texts and numbers; not true and false, nor the NaN that other programs write for what is missing."""
    return isinstance(x, str) or (isinstance(x, int | float) and not isinstance(x, bool) and isfinite(x))


def _messages(record: dict[str, Any]) -> list[dict[str, str]]:
    messages = record["messages"]
    for message in messages if isinstance(messages, list) else [None]:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError("'messages' must be a list of objects with role and content, both text")
    if not any(m["role"] == "assistant" and m["content"].strip() for m in messages):
        raise ValueError("'messages' holds none of the assistant, so nothing is to be learnt; leave it out")
    return [{"role": m["role"], "content": m["content"]} for m in messages]
