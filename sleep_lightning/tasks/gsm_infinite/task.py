"""GSM-Infinite: word problems whose few relevant facts lie among many of the same grammar; question first, answer last.

Sequence: ``Question: ... Context: ... Answer: 12``. With ``pad_side=left`` padding comes first and the context takes
``max_tokens``; with ``right`` the text starts at 0 and padding follows the answer. Labels are the integer and the end
token, with no chain of thought.
"""

import json
import random
from array import array
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.gsm_infinite.config import MODES, GSMInfiniteKeys
from sleep_lightning.tasks.gsm_infinite.jsonl import read_jsonl
from sleep_lightning.tasks.gsm_infinite.language import words
from sleep_lightning.tasks.gsm_infinite.source import FileSource, GeneratedSource, Source
from sleep_lightning.tasks.task import Split, Task, TaskBatch
from sleep_lightning.tasks.tokenizer import Tokenizer, load_tokenizer
from sleep_lightning.tasks.word_tokenizer import WORDS, WordTokenizer

_PREFIX = " Answer:"


class GSMInfinite(Task):
    """Splits share no problem: what a problem's answer follows from decides by a hash which split it belongs to.

    Attributes:
        tokenizer: ``encode`` and ``decode`` texts.
        neutral_pad: id of the padding that the model is to pass over, or None.

    Raises:
        ValueError: if a length from ``min_tokens`` to ``max_tokens`` cannot be reached, or the tokenizer or file not
            be read.
    """

    def __init__(self, config: GSMInfiniteKeys) -> None:
        self.config = config
        records = None if config.jsonl is None else read_jsonl(config.jsonl)
        if config.tokenizer == WORDS:
            texts = [words(config.settings)]
            for record in records or ():
                texts += [record.question, record.context, str(record.answer)]
            self.tokenizer: Tokenizer = WordTokenizer(texts, config.max_value)
        else:
            self.tokenizer = load_tokenizer(config.tokenizer)
        self.vocab = self.tokenizer.vocab
        self.neutral_pad = self.tokenizer.pad if config.pad == "neutral" else None
        self._source: Source
        if records is None:
            self._source = GeneratedSource(config, self.tokenizer)
            self._answer_length = max(len(self._answer(n)) for n in range(config.max_value + 1))
        else:
            self._source = FileSource(config, self.tokenizer, records)
            self._answer_length = max(len(self._answer(record.answer)) for record in records)
        self._prefix = self.tokenizer.encode(_PREFIX)
        self.context_length = config.max_tokens if config.pad_side == "left" else config.min_tokens
        self.sequence_length = config.max_tokens + len(self._prefix) + self._answer_length

    def _answer(self, number: int) -> list[int]:
        return self.tokenizer.encode(f" {number}")

    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """See ``Task.sample``. ``slices``: ``op``; ``mode`` (0 forward, 1 reverse) where there are several."""
        c, rng = self.config, random.Random(int(torch.randint(1 << 62, (), generator=generator)))
        tokens = torch.full((batch_size, self.sequence_length), self.tokenizer.pad)
        labels = torch.full_like(tokens, IGNORE)
        ops, modes = [], []
        for row in range(batch_size):
            ids, number, op, mode = self._source.draw(rng, split)
            answer = self._answer(number)
            text = ids + self._prefix + answer
            start = c.max_tokens - len(ids) if c.pad_side == "left" else 0
            first = start + len(ids) + len(self._prefix)
            tokens[row, start : start + len(text)] = torch.frombuffer(array("q", text), dtype=torch.int64)
            labels[row, first - 1 : first + len(answer)] = torch.tensor([*answer, self.tokenizer.eos])
            ops.append(op)
            modes.append(mode)
        slices = {"op": torch.tensor(ops)}
        if len(c.modes) > 1:
            slices["mode"] = torch.tensor([MODES.index(mode) for mode in modes])
        return TaskBatch(tokens, labels, slices)

    def text(self, batch_row: torch.Tensor) -> str:
        """The text of a row of token ids, without padding."""
        return self.tokenizer.decode(batch_row.tolist())


@dataclass
class GSMInfiniteConfig(GSMInfiniteKeys):
    """The keys of section ``task``; ``build`` makes the task."""

    def build(self) -> GSMInfinite:
        """The task; the same one for equal keys while the file of ``jsonl`` stays as it is."""
        path = Path(self.jsonl) if self.jsonl is not None else None
        return _build(json.dumps(vars(self)), path.stat().st_mtime_ns if path and path.exists() else None)

    def anchored(self) -> "GSMInfiniteConfig":
        """The same with an absolute path of ``jsonl``."""
        return self if self.jsonl is None else replace(self, jsonl=str(Path(self.jsonl).absolute()))


@lru_cache(maxsize=4)
def _build(keys: str, changed: int | None) -> GSMInfinite:
    """An experiment builds its task several times, and a large file takes long to read."""
    return GSMInfinite(GSMInfiniteKeys(**json.loads(keys)))
