"""GSM-Infinite: word problems whose few relevant facts lie among many of the same grammar; question first, answer last.

Sequence: ``Question: ... Context: ... Answer: 12``, or the question behind the context. With ``pad_side=left`` padding
comes first and both take ``max_tokens``; with ``right`` the text starts at 0 and padding follows the answer. Labels are
the integer and the end token, with no chain of thought.
"""

import json
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.gsm_infinite.config import MODES, GSMInfiniteKeys
from sleep_lightning.tasks.gsm_infinite.language import words
from sleep_lightning.tasks.gsm_infinite.published import Record, by_split, problem_files
from sleep_lightning.tasks.gsm_infinite.scoring import published_metrics, same_answer
from sleep_lightning.tasks.gsm_infinite.source import FileSource, GeneratedSource, Sample, Source
from sleep_lightning.tasks.stamp import Stamp, stamp
from sleep_lightning.tasks.task import SPLITS, Split, Task, TaskBatch
from sleep_lightning.tasks.tokenizer import Tokenizer, anchored, load_tokenizer
from sleep_lightning.tasks.word_tokenizer import WORDS, WordTokenizer

_PREFIX = " Answer:"


class GSMInfinite(Task):
    """Splits share no problem: what a problem's answer follows from decides by a hash which split it belongs to.

    Attributes:
        tokenizer: ``encode`` and ``decode`` texts.
        unordered: whether some answers are lists, right in any order.
        neutral_pad: id of the padding that the model is to pass over, or None.

    Raises:
        ValueError: if a length from ``min_tokens`` to ``max_tokens`` cannot be reached, or the tokenizer or file not
            be read.
    """

    def __init__(self, config: GSMInfiniteKeys) -> None:
        self.config = config
        files = by_split(config)
        records = [record for of_split in files.values() for record in of_split]
        if config.tokenizer == WORDS:
            texts = [words(config.settings)]
            for record in records:
                texts += [record.question, record.context, record.answer]
            self.tokenizer: Tokenizer = WordTokenizer(texts, config.max_value)
        else:
            self.tokenizer = load_tokenizer(config.tokenizer)
        self.vocab = self.tokenizer.vocab
        self.neutral_pad = self.tokenizer.pad if config.pad == "neutral" else None
        self._sources = {split: self._source(split, files) for split in SPLITS}
        answers = {record.answer for record in records}
        if any(isinstance(source, GeneratedSource) for source in self._sources.values()):
            answers |= {str(n) for n in range(config.max_value + 1)}
        self._answer_length = max(len(self._answer(answer)) for answer in answers)
        self.unordered = any(", " in record.answer for record in records)
        self._prefix = self.tokenizer.encode(_PREFIX)
        self.context_length = config.max_tokens if config.pad_side == "left" else config.min_tokens
        self.sequence_length = config.max_tokens + len(self._prefix) + self._answer_length

    def _source(self, split: Split, files: Mapping[Split, list[Record]]) -> Source:
        c, own = self.config, f"{split}_file"
        if getattr(c, own, None) is not None:
            return FileSource(c, self.tokenizer, files[split], split, own)
        if c.jsonl is not None:
            return FileSource(c, self.tokenizer, files[split], split, "jsonl")
        return GeneratedSource(c, self.tokenizer)

    def _answer(self, answer: str) -> list[int]:
        return self.tokenizer.encode(f" {answer}")

    def batch(self, batch_size: int, *, seed: int, position: int, split: Split = "train") -> TaskBatch:
        """See ``Task.batch``; problems of a whole file come one after the other, over and over."""
        source = self._sources[split]
        if not isinstance(source, FileSource) or getattr(self.config, f"{split}_file", None) is None:
            return super().batch(batch_size, seed=seed, position=position, split=split)
        numbers = range(position * batch_size, (position + 1) * batch_size)
        return self._batch([source.problems[i % len(source.problems)] for i in numbers])

    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """See ``Task.sample``. ``slices``: ``op``; ``mode`` (0 forward, 1 reverse) where there are several."""
        rng = random.Random(int(torch.randint(1 << 62, (), generator=generator)))
        return self._batch([self._sources[split].draw(rng, split) for _ in range(batch_size)])

    def _batch(self, samples: Sequence[Sample]) -> TaskBatch:
        c = self.config
        tokens = torch.full((len(samples), self.sequence_length), self.tokenizer.pad)
        labels = torch.full_like(tokens, IGNORE)
        ops, modes = [], []
        for row, (ids, said, op, mode) in enumerate(samples):
            answer = self._answer(said)
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

    def same_answer(self, said: Sequence[int], label: Sequence[int]) -> bool:
        """Whether an answer is right as published: of symbolic problems, the variables in any order. It must have
        ended where the label has: what else would follow is not known."""
        if self.tokenizer.eos not in said:
            return False
        ended = said[: list(said).index(self.tokenizer.eos)]
        return same_answer(self.tokenizer.decode(ended), self.tokenizer.decode(label))

    def published_metrics(self, accuracy: Mapping[int, float]) -> dict[str, float | None]:
        """The published figures, of accuracies by number of operations."""
        return published_metrics(accuracy)


@dataclass
class GSMInfiniteConfig(GSMInfiniteKeys):
    """The keys of section ``task``; ``build`` makes the task."""

    def build(self) -> GSMInfinite:
        """The task; the same one for equal keys while its files stay as they are."""
        paths = [file for path in self.files.values() for file in problem_files(path)]
        return _build(json.dumps(vars(self)), stamp([*paths, self.tokenizer]))

    def anchored(self) -> "GSMInfiniteConfig":
        """The same with absolute paths of files, and of the tokenizer's directory."""
        paths = {key: str(Path(path).absolute()) for key, path in self.files.items()}
        if self.tokenizer != WORDS:
            paths["tokenizer"] = anchored(self.tokenizer)
        return replace(self, **paths)  # type: ignore[arg-type]

    @property
    def files(self) -> dict[str, str]:
        """Those that are named, by their keys."""
        keys = ("jsonl", "validation_file", "test_file")
        return {key: path for key in keys if (path := getattr(self, key)) is not None}


@lru_cache(maxsize=4)
def _build(keys: str, stamped: Stamp) -> GSMInfinite:
    """An experiment builds its task several times, and a large file takes long to read."""
    return GSMInfinite(GSMInfiniteKeys(**json.loads(keys)))
