"""Text and token ids: what a caller may give."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

Tokens = str | Sequence[int] | Tensor
"""Text, or token ids ``[T]``."""
Stops = int | str | Sequence[int | str]
"""Token ids or texts that end an answer."""


class Tokenizer(Protocol):
    """What turns text into tokens and back; those of Hugging Face do."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


class Text:
    """Token ids of what is given, checked.

    Args:
        tokenizer: None: only token ids are taken.
        vocab_size: tokens of the model.
    """

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        self.tokenizer, self._vocab_size = tokenizer, vocab_size

    def ids(self, tokens: Tokens) -> list[int]:
        """Raises ValueError for what is not a sequence of tokens of the model."""
        if isinstance(tokens, str):
            ids = list(self._needed().encode(tokens))
        else:
            flat = torch.as_tensor(tokens)
            if flat.dim() != 1 or (flat.is_floating_point() and flat.numel()):
                raise ValueError(
                    f"tokens of shape {tuple(flat.shape)} and {flat.dtype} are not a sequence of token ids; give a "
                    f"list of integers, or text"
                )
            ids = [int(i) for i in flat.tolist()]
        if (wrong := next((i for i in ids if not 0 <= i < self._vocab_size), None)) is not None:
            raise ValueError(f"token {wrong} is not one of the model's, 0 to {self._vocab_size - 1}")
        return ids

    def decode(self, ids: list[int]) -> str:
        """Raises ValueError without a tokenizer."""
        return self._needed().decode(ids)

    def stops(self, stop: Stops) -> tuple[set[int], list[str]]:
        """Token ids and texts; raises ValueError for texts without a tokenizer."""
        stops = [stop] if isinstance(stop, int | str) else list(stop)
        texts = [s for s in stops if isinstance(s, str) and s]
        if texts:
            self._needed()
        return {s for s in stops if not isinstance(s, str)}, texts

    def _needed(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("text needs a tokenizer; give SleepSession one, or token ids")
        return self.tokenizer
