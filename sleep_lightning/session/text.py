"""Text and token ids: what a caller may give."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sleep_lightning.session.answer_text import AnswerText
from sleep_lightning.session.codec import Codec, Tokenizer

Tokens = str | Sequence[int] | Tensor
"""Text, or token ids ``[T]``."""
Stops = int | str | Sequence[int | str]
"""Token ids or texts that end an answer."""


class Text:
    """Token ids of what is given, checked.

    Args:
        tokenizer: None: only token ids are taken.
        vocab_size: tokens of the model.
    """

    def __init__(self, tokenizer: Tokenizer | Codec | None, vocab_size: int) -> None:
        self.codec, self._vocab_size = None if tokenizer is None else Codec.of(tokenizer), vocab_size

    def ids(self, tokens: Tokens, *, first: bool = False) -> list[int]:
        """Raises ValueError for what is not a sequence of tokens of the model; ``first``: a text continues nothing."""
        ids = self._needed().encode(tokens, first=first) if isinstance(tokens, str) else _flat(tokens)
        if (wrong := next((i for i in ids if not 0 <= i < self._vocab_size), None)) is not None:
            raise ValueError(f"token {wrong} is not one of the model's, 0 to {self._vocab_size - 1}")
        return ids

    def begin(self, tokens: Tokens) -> list[int]:
        """Ids that stand before what begins a session: before text, those of the tokenizer's own."""
        return self.ids(self._needed().bos) if isinstance(tokens, str) else []

    def answer(self, stops: Sequence[str]) -> AnswerText:
        """What makes text of an answer's tokens. Without a tokenizer there is none."""
        return AnswerText(self.codec, stops)

    def stops(self, stop: Stops) -> tuple[set[int], list[str]]:
        """Token ids, the tokenizer's end of a text among them, and texts; raises ValueError for texts without one."""
        stops = [stop] if isinstance(stop, int | str) else list(stop)
        texts = [s for s in stops if isinstance(s, str) and s]
        if texts:
            self._needed()
        ends = set() if self.codec is None or self.codec.eos is None else {self.codec.eos}
        return {s for s in stops if not isinstance(s, str)} | ends, texts

    def _needed(self) -> Codec:
        if self.codec is None:
            raise ValueError("text needs a tokenizer; give SleepSession one, or token ids")
        return self.codec


def _flat(tokens: Sequence[int] | Tensor) -> list[int]:
    try:
        flat = torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"these are no token ids ({said}); give a list of integers, or text") from None
    if flat.dim() != 1 or (flat.is_floating_point() and flat.numel()):
        raise ValueError(
            f"tokens of shape {tuple(flat.shape)} and {flat.dtype} are not a sequence of token ids; give a "
            f"list of integers, or text"
        )
    return [int(i) for i in flat.tolist()]
