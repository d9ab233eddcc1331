"""Read a row of symbols, then say it backwards."""

from dataclasses import dataclass

import torch

from sleep_lightning.tasks import Split, Task, TaskBatch


class Reverse(Task):
    """The context is the row, in which the first symbol decides the split."""

    def __init__(self, length: int = 8, symbols: int = 6) -> None:
        if length < 2:
            raise ValueError(f"length={length} must be at least 2")
        self.length, self.symbols = length, symbols
        self.vocab = (*"abcdefghijklmnopqrstuvwxyz"[:symbols], "|")
        self.context_length, self.sequence_length = length, 2 * length

    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        rows = torch.randint(self.symbols, (batch_size, self.length), generator=generator)
        low, high = {"validation": (0, 1), "test": (1, 2)}.get(split, (2, self.symbols))
        rows[:, 0] = torch.randint(low, high, (batch_size,), generator=generator)
        answers = rows.flip(1)
        bar = torch.full((batch_size, 1), self.symbols)
        tokens = torch.cat([rows, bar, answers[:, :-1]], 1)
        labels = torch.full_like(tokens, -100)
        labels[:, self.length :] = answers
        return TaskBatch(tokens, labels)


@dataclass
class ReverseConfig:
    """The same as a config dataclass: types and defaults are checked before anything is built."""

    name: str = "reverse"
    length: int = 8
    symbols: int = 6

    def build(self) -> Reverse:
        return Reverse(self.length, self.symbols)
