"""Text of a task: the printable tokens of its vocabulary, with spaces between them."""

from collections.abc import Sequence


class Words:
    """A tokenizer of whole words.

    Args:
        vocab: printable tokens by id.
    """

    def __init__(self, vocab: Sequence[str]) -> None:
        self.vocab = tuple(vocab)
        self._ids = {word: i for i, word in enumerate(self.vocab)}

    def encode(self, text: str) -> list[int]:
        """Ids of words between white space. Raises ValueError for one that is not in the vocabulary."""
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError as error:
            shown = " ".join(self.vocab[:40]) + (" ..." if len(self.vocab) > 40 else "")
            raise ValueError(f"{error} is no word of the task; write its words, with spaces between: {shown}") from None

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self.vocab[i] for i in tokens)
