"""A text suite as a task: rows of its source, tokens of any tokenizer."""

import json
from functools import lru_cache
from typing import Any

from sleep_lightning.tasks.stamp import Stamp, stamp
from sleep_lightning.tasks.suites.source import SuiteKeys, SuiteSource
from sleep_lightning.tasks.text.kept import KeptRows
from sleep_lightning.tasks.text.layout import Room
from sleep_lightning.tasks.text.row import RowSource
from sleep_lightning.tasks.text.task import RowTask
from sleep_lightning.tasks.tokenizer import Tokenizer, load_tokenizer
from sleep_lightning.tasks.word_tokenizer import WORDS, WordTokenizer

_MOST_NUMBERS = 9999
"""Up to which every number may have a token."""


def build_suite(keys: SuiteKeys, source: type[SuiteSource[Any]]) -> RowTask:
    """The task; the same one for equal keys and files of a tokenizer (an experiment builds its task several times).

    Raises:
        ValueError: for a tokenizer that cannot be loaded, or rows that do not fit their windows.
    """
    return _built(source, json.dumps(vars(keys)), stamp([keys.tokenizer]))


@lru_cache(maxsize=8)
def _built(kind: type[SuiteSource[Any]], values: str, stamped: Stamp) -> RowTask:
    keys: SuiteKeys = kind.config(**json.loads(values))
    tokenizer = _tokenizer(keys, kind)

    def measure(text: str) -> int:
        return len(tokenizer.encode(text))

    before, L = len(tokenizer.bos), keys.window_tokens
    source: RowSource = kind(keys, measure, before)
    windows = max(keys.windows)
    if keys.kept != "all":
        source, windows = KeptRows(source, keys.kept, keys.kept_windows, L - before, measure), keys.kept_windows
    return RowTask(source, tokenizer, Room(L, windows, keys.question_tokens), question=keys.question, probe=False)


def _tokenizer(keys: SuiteKeys, kind: type[SuiteSource[Any]]) -> Tokenizer:
    if keys.tokenizer != WORDS:
        return load_tokenizer(keys.tokenizer)
    if (most := kind.max_number(keys)) > _MOST_NUMBERS:
        raise ValueError(
            f"task.tokenizer=words has a token for every number, here up to {most}; use numbers of at most 4 digits, "
            f"bytes, or a Hugging Face tokenizer"
        )
    return WordTokenizer(kind.words(keys), most)
