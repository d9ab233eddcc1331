"""A closed vocabulary of whole words: enough for generated text, and small enough to train from scratch on a CPU."""

import re
from collections.abc import Iterable, Sequence

WORDS = "words"
"""``task.tokenizer`` for the closed vocabulary."""
_WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")
_NO_SPACE_BEFORE = re.compile(r" (?=[.,:;?!])")


class WordTokenizer:
    """Every word, punctuation mark and number from 0 to ``max_number`` is one token."""

    def __init__(self, texts: Iterable[str], max_number: int) -> None:
        found = {word for text in texts for word in _WORD.findall(text)}
        numbers = [str(n) for n in range(max_number + 1)]
        self.vocab = ("<pad>", "<eos>", *numbers, *sorted(found - set(numbers)))
        self.pad, self.eos = 0, 1
        self.bos: tuple[int, ...] = ()
        self._ids = {word: i for i, word in enumerate(self.vocab)}

    def encode(self, text: str, *, first: bool = False, special: bool = False) -> list[int]:
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
