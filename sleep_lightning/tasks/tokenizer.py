"""Text to tokens: bytes, or any Hugging Face tokenizer."""

import json
import socket
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from sleep_lightning.machine.proxies import through_proxy
from sleep_lightning.tasks.stamp import Stamp, stamp

BYTES = "bytes"
"""``task.tokenizer`` for bytes."""
_UNREACHABLE = "it is no directory here, was not downloaded before, and the hub cannot be reached"
_JOINT = "\n"
"""A character that no SentencePiece merges with what follows."""


class Tokenizer(Protocol):
    """What the tasks need of a tokenizer.

    Attributes:
        vocab: printable tokens by id.
        pad: id that fills rows up.
        eos: id that ends an answer.
        bos: ids that stand before a text, those of the tokenizer's own (none for most).
    """

    vocab: tuple[str, ...]
    pad: int
    eos: int
    bos: tuple[int, ...]

    def encode(self, text: str, *, first: bool = False, special: bool = False) -> list[int]:
        """Ids of a text that continues another, nothing added: ids of several texts are those of the texts joined.

        Args:
            text: any.
            first: it is the first of a row, and continues nothing.
            special: names of special tokens in it, "<|im_end|>", are these tokens; else they are text like any.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without padding and end."""


class ByteTokenizer:
    """A token for every byte of UTF-8; needs nothing and has no unknown text."""

    vocab = (*(chr(i) if 32 < i < 127 else f"<{i:02x}>" for i in range(256)), "<pad>", "<eos>")
    pad, eos = 256, 257
    bos: tuple[int, ...] = ()

    def encode(self, text: str, *, first: bool = False, special: bool = False) -> list[int]:
        """See ``Tokenizer``. Halves of surrogate pairs, which JSON may hold, become "?"."""
        return list(text.encode(errors="replace"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class HuggingFaceTokenizer:
    """A tokenizer of the transformers library, by name or directory.

    ``pad`` is one that no text holds: its pad token, unless that ends texts too; then another special token, the
    unknown one last; else it is the end token.

    Raises:
        ValueError: without transformers, where nothing can be loaded, or for a tokenizer without an end token.
    """

    def __init__(self, name: str) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ValueError(
                f"task.tokenizer={name} needs transformers: pip install 'sleep-lightning[tokenizers]'; or use bytes"
            ) from error
        alone = False
        try:
            alone = not Path(name).is_dir() and _hub_is_out_of_reach()
            more = {"local_files_only": True} if alone else _without_model(name)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, **more)
        except Exception as error:  # transformers raises what hub, parsers and torch raise
            said = str(error).strip().partition("\n")[0].rstrip(".: ")
            reason = _wrong_with(name) or (_UNREACHABLE if alone else said)
            raise ValueError(
                f"task.tokenizer={name} cannot be loaded ({reason}); use bytes, or the name or directory of a tokenizer"
            ) from error
        if self._tokenizer.eos_token_id is None:
            raise ValueError(
                f"task.tokenizer={name} has no end-of-sequence token; set one and save the tokenizer again"
            )
        self.vocab = tuple(map(str, self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer)))))
        self.eos = int(self._tokenizer.eos_token_id)
        self.bos = self._prefix()
        self.pad = self._padding()
        # SentencePiece puts a mark before every text, as if a space stood there
        self._marks = self._plain("a") != self._plain(f"{_JOINT}a")[len(self._plain(_JOINT)) :]

    @property
    def wrapped(self) -> Any:
        """The library's own."""
        return self._tokenizer

    def encode(self, text: str, *, first: bool = False, special: bool = False) -> list[int]:
        """See ``Tokenizer``."""
        if first or not self._marks:
            return self._plain(text, special)
        return self._plain(f"{_JOINT}{text}", special)[len(self._plain(_JOINT)) :]

    def decode(self, ids: Sequence[int]) -> str:
        ids = [i for i in ids if i not in (self.pad, self.eos)]
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)).strip()

    def chat(self, messages: Sequence[dict[str, str]], answers: bool) -> str | None:
        """Messages in the tokenizer's own format, up to where an answer would begin if it ``answers``; None: it has no
        format, or refuses these."""
        if not self._tokenizer.chat_template:
            return None
        try:
            return str(
                self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answers)
            )
        except Exception:  # templates raise what they like for roles that they do not know
            return None

    def _plain(self, text: str, special: bool = False) -> list[int]:
        text = text.encode(errors="replace").decode()  # halves of surrogate pairs, as for bytes
        # verbose: no warning of texts longer than the model was trained on, which is what windows are for
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=not special, verbose=False)
        return list(encoded["input_ids"])

    def _prefix(self) -> tuple[int, ...]:
        plain, whole = self._plain("a"), list(self._tokenizer("a")["input_ids"])
        starts = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        return tuple(whole[: starts[0]]) if starts else ()

    def _padding(self) -> int:
        t = self._tokenizer
        used = {self.eos, *self.bos, t.bos_token_id}
        spare = [i for i in t.all_special_ids if i != t.unk_token_id]
        candidates = [i for i in (t.pad_token_id, *spare, t.unk_token_id) if i is not None and i not in used]
        return int(candidates[0]) if candidates else self.eos


def _wrong_with(name: str) -> str | None:
    """What is wrong with a directory of a tokenizer that cannot be loaded, where that can be told."""
    if not name:
        return "it is empty"
    path = Path(name)
    if path.is_file():
        return "it is a file; name the directory that holds tokenizer.json"
    if not path.is_dir():
        # else a name on the hub, of which transformers says what is wrong
        return "there is no such directory" if name.startswith((".", "~", "/")) or name.count("/") > 1 else None
    for file in sorted(path.glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            return f"its {file.name} is broken: {error}; save the tokenizer again"
    return None if any(path.iterdir()) else "the directory is empty"


def _hub_is_out_of_reach() -> bool:
    """Whether the hub's name has no address here: its client would ask again for most of a minute."""
    from huggingface_hub.constants import ENDPOINT

    hub = urlsplit(ENDPOINT)
    if through_proxy(hub):  # which looks the name up
        return False
    try:
        socket.getaddrinfo(hub.hostname, None)
    except OSError:
        return True
    return False


def _without_model(name: str) -> dict[str, Any]:
    """How to load the tokenizer of a directory whose model transformers does not know, and whose config it refuses."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    try:
        kind = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return {} if kind in CONFIG_MAPPING else {"config": PreTrainedConfig()}


def anchored(name: str) -> str:
    """The name of a tokenizer, absolute if it is that of a directory."""
    return str(Path(name).absolute()) if name and Path(name).is_dir() and name != BYTES else name


def load_tokenizer(name: str) -> ByteTokenizer | HuggingFaceTokenizer:
    """``bytes``, or a Hugging Face tokenizer; each loaded once while its files stay as they are."""
    return ByteTokenizer() if name == BYTES else _load(name, stamp([name]))


@lru_cache(maxsize=4)
def _load(name: str, stamped: Stamp) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(name)
