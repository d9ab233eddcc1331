"""The text of an answer as its tokens come: whole characters, and nothing of a text that ends it."""

from collections.abc import Iterable

from sleep_lightning.session.codec import Codec

CUT = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer writes for bytes that are no character, or not yet."""


class AnswerText:
    """Takes the tokens of one answer; the pieces that it gives make up its text.

    A piece is held back while the last character lacks bytes, or while it may be the beginning of a stop.

    Args:
        codec: of the tokens; None: there is no text.
        stops: texts that end the answer and are no part of it.

    Attributes:
        text: the pieces so far.
        ended: whether a stop is complete.
    """

    def __init__(self, codec: Codec | None, stops: Iterable[str] = ()) -> None:
        self._codec, self._stops = codec, tuple(filter(None, stops))
        self._ids: list[int] = []
        self._context = self._read = 0  # before _read all is decoded; decoders need what stands before, from _context
        self._held = ""
        self.text, self.ended = "", False

    def push(self, token: int) -> str:
        """The piece that another token gives; may be empty."""
        self._ids.append(token)
        new = self._decoded()
        if not new or new.endswith(CUT):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._piece(new, last=False)

    def finish(self) -> str:
        """The piece at the end: what was held back."""
        new = self._decoded()
        self._read = len(self._ids)
        return self._piece(new, last=True)

    def _decoded(self) -> str:
        """What is not decoded yet. Each token is decoded a few times, however long the answer is."""
        if self._codec is None or self._read == len(self._ids):
            return ""
        before = self._codec.decode(self._ids[self._context : self._read])
        both = self._codec.decode(self._ids[self._context :])
        if both.startswith(before):
            return both[len(before) :]
        return self._codec.decode(self._ids[self._read :])  # bytes that are no character may spoil those before them

    def _piece(self, new: str, *, last: bool) -> str:
        if self.ended:
            return ""
        held = self._held + new
        at = min((i for stop in self._stops if (i := held.find(stop)) >= 0), default=None)
        self.ended = at is not None
        if at is None:
            at = len(held) if last else len(held) - max((_begun(held, stop) for stop in self._stops), default=0)
        self._held = "" if self.ended else held[at:]
        self.text += held[:at]
        return held[:at]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text may begin a stop."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
