"""Text to tokens: a closed vocabulary of whole words, or any Hugging Face tokenizer."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

WORDS = "words"
"""``task.tokenizer`` for the closed vocabulary."""
_WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")
_NO_SPACE_BEFORE = re.compile(r" (?=[.,:;?!])")


class Tokenizer(Protocol):
    """What the task needs of a tokenizer.

    Attributes:
        vocab: printable tokens by id.
        pad: id that fills rows up.
        eos: id that ends an answer.
    """

    vocab: tuple[str, ...]
    pad: int
    eos: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text, nothing added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without padding and end."""


class WordTokenizer:
    """Every word, punctuation mark and number from 0 to ``max_number`` is one token."""

    def __init__(self, texts: Iterable[str], max_number: int) -> None:
        found = {word for text in texts for word in _WORD.findall(text)}
        numbers = [str(n) for n in range(max_number + 1)]
        self.vocab = ("<pad>", "<eos>", *numbers, *sorted(found - set(numbers)))
        self.pad, self.eos = 0, 1
        self._ids = {word: i for i, word in enumerate(self.vocab)}

    def encode(self, text: str) -> list[int]:
        """See ``Tokenizer``.

        Raises:
            ValueError: for a word that is not in the vocabulary.
        """
        try:
            return [self._ids[word] for word in _WORD.findall(text)]
        except KeyError as error:
            raise ValueError(
                f"task.tokenizer=words has no token {error}; keep to task.settings or use a pretrained tokenizer"
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        return _NO_SPACE_BEFORE.sub("", " ".join(self.vocab[i] for i in ids if i not in (self.pad, self.eos)))


class HuggingFaceTokenizer:
    """A tokenizer of the transformers library, by name or directory; a missing pad token is its end token.

    Raises:
        ValueError: without transformers, where nothing can be loaded, or for a tokenizer without an end token.
    """

    def __init__(self, name: str) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ValueError(
                f"task.tokenizer={name} needs transformers: pip install 'sleep-lightning[tokenizers]'; or use words"
            ) from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except Exception as error:  # transformers raises what hub, parsers and torch raise
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise ValueError(
                f"task.tokenizer={name} cannot be loaded ({reason}); use words, or the name or directory of a tokenizer"
            ) from error
        if self._tokenizer.eos_token_id is None:
            raise ValueError(
                f"task.tokenizer={name} has no end-of-sequence token; set one and save the tokenizer again"
            )
        self.vocab = tuple(map(str, self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer)))))
        self.eos = int(self._tokenizer.eos_token_id)
        pad = self._tokenizer.pad_token_id
        self.pad = self.eos if pad is None else int(pad)

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        ids = [i for i in ids if i not in (self.pad, self.eos)]
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)).strip()


@lru_cache(maxsize=4)
def load_tokenizer(name: str) -> HuggingFaceTokenizer:
    """A Hugging Face tokenizer, loaded once."""
    return HuggingFaceTokenizer(name)
