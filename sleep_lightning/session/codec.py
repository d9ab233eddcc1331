"""Any tokenizer as a session uses it: what it reads stands behind other text, and what it says comes token by token."""

import inspect
import re
import threading
from collections.abc import Sequence
from typing import Any, Protocol

_JOINT = "\n"
"""A character that no SentencePiece merges with what follows."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A token for a byte, which some tokenizers count among the special ones."""


class Tokenizer(Protocol):
    """What turns text into tokens and back: one of ``transformers`` or ``tokenizers``, or any of this form.

    It may have ``bos``, ids that begin a session, ``eos``, the id that ends an answer, and an argument ``first`` of
    ``encode``: the text continues no other.
    """

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


class Codec:
    """Text to tokens and back, for all sessions that share a tokenizer; from any thread.

    Attributes:
        bos: ids that begin a session; none for most tokenizers.
        eos: the id that ends an answer; None: it is not known.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer: Any = tokenizer
        self.bos: tuple[int, ...] = tuple(getattr(tokenizer, "bos", ()))
        self.eos: int | None = getattr(tokenizer, "eos", None)
        self._takes_first = "first" in inspect.signature(tokenizer.encode).parameters

    @staticmethod
    def of(tokenizer: "Tokenizer | Codec") -> "Codec":
        """The codec of a tokenizer; of a codec, itself."""
        if isinstance(tokenizer, Codec):
            return tokenizer
        raw: Any = tokenizer
        if hasattr(raw, "convert_ids_to_tokens"):
            backend = getattr(raw, "backend_tokenizer", None) if getattr(raw, "is_fast", False) else None
            return _Slow(raw) if backend is None else _Fast(backend, raw.eos_token_id)
        return _Fast(raw) if hasattr(raw, "token_to_id") and hasattr(raw, "to_str") else Codec(tokenizer)

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """Ids of a text, without special tokens: their names in it are text like any. Half characters become "?".

        Args:
            text: any.
            first: it continues nothing.
        """
        whole = text.encode(errors="replace").decode()
        return [int(i) for i in self._ids(whole, first)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens have none."""
        return str(self._tokenizer.decode(list(ids)))

    def _ids(self, text: str, first: bool) -> Sequence[int]:
        encoded: Sequence[int] = self._tokenizer.encode(text, **({"first": first} if self._takes_first else {}))
        return encoded


class _HuggingFace(Codec):
    """One that puts special tokens around a text by itself, and perhaps a mark before it, as if a space stood there."""

    def __init__(self, eos: int | None) -> None:
        plain, whole = self._plain("a"), self._whole("a")
        at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        self.bos, behind = tuple(whole[:at]), whole[at + len(plain) :]
        self.eos = behind[0] if eos is None and len(behind) == 1 else eos
        self._marks = plain != self._plain(f"{_JOINT}a")[len(self._plain(_JOINT)) :]

    def _ids(self, text: str, first: bool) -> list[int]:
        if first or not self._marks:
            return self._plain(text)
        return self._plain(f"{_JOINT}{text}")[len(self._plain(_JOINT)) :]

    def _plain(self, text: str) -> list[int]:
        raise NotImplementedError

    def _whole(self, text: str) -> list[int]:
        raise NotImplementedError


class _Fast(_HuggingFace):
    """Of the library ``tokenizers``: a copy, which nobody else sets up otherwise while threads use it."""

    def __init__(self, tokenizer: Any, eos: int | None = None) -> None:
        self._tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder().items()
        self._silent = {i for i, token in added if token.special and not _BYTE.fullmatch(token.content)}
        super().__init__(eos)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([i for i in ids if i not in self._silent], skip_special_tokens=False))

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _whole(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)


class _Slow(_HuggingFace):
    """Of ``transformers``, in Python: one thread at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._lock = tokenizer, threading.Lock()
        super().__init__(tokenizer.eos_token_id)

    def decode(self, ids: Sequence[int]) -> str:
        with self._lock:
            options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
            return str(self._tokenizer.decode(list(ids), **options))

    def _plain(self, text: str) -> list[int]:
        with self._lock:
            options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
            return list(self._tokenizer(text, **options)["input_ids"])

    def _whole(self, text: str) -> list[int]:
        with self._lock:
            return list(self._tokenizer(text)["input_ids"])
