"""Rule 110: several rings of bits; for each, the first bit after t steps of the automaton.

Sequence (n strings of L bits, method 4.1): ``s_0 | s_1 | ... | s_{n-1} | Q y_0 ... y_{n-2}``, where ``|`` marks
the end of a window of L tokens and is not a token. The labels of the last n positions are ``y_0 ... y_{n-1}``: the
query token Q keeps all of them inside one window, so that the model sleeps on every string.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.task import Split, Task, TaskBatch

_HOLDOUT = 16
_ODD = 0x5851F42D4C957F2D
"""Multiplier of the bijection that assigns strings to the splits."""


@dataclass
class Rule110Config:
    name: str = "rule110"
    """Name of the task."""
    ring_size: int = field(default=24, metadata={"high": 2**16})
    """Bits of a string; neighbours wrap around."""
    n_strings: int = field(default=4, metadata={"high": 2**16})
    """Strings of a sequence, one label each."""
    steps: list[int] = field(default_factory=lambda: [32], metadata={"high": 2**16})
    """t: steps of the automaton; each sequence draws one of them, which its query token tells."""

    def __post_init__(self) -> None:
        if not 5 <= self.ring_size <= 48:
            raise ValueError(f"task.ring_size={self.ring_size} must be from 5 to 48 bits")
        if self.n_strings < 1:
            raise ValueError(f"task.n_strings={self.n_strings} must be at least 1")
        if not self.steps or min(self.steps) < 0 or len(set(self.steps)) < len(self.steps):
            raise ValueError(f"task.steps={self.steps} must list different numbers >= 0, for example [4]")

    def build(self) -> "Rule110":
        return Rule110(self)


def evolve(states: Tensor, steps: int, ring_size: int) -> Tensor:
    """Rule 110 on rings packed into int64 (leftmost bit highest): ``new = (c | r) & ~(l & c & r)``, ``steps`` times."""
    full = (1 << ring_size) - 1
    for _ in range(steps):
        left = states >> 1 | (states & 1) << ring_size - 1  # the neighbour to the left of each cell
        right = states << 1 & full | states >> ring_size - 1
        states = (states | right) & ~(left & states & right)
    return states


def first_bit(states: Tensor, ring_size: int) -> Tensor:
    """The leftmost bit of packed rings."""
    return states >> ring_size - 1 & 1


class Rule110(Task):
    """Splits share no string: a bijection assigns 1/16 of all rings to validation, 1/16 to test, the rest to train."""

    def __init__(self, config: Rule110Config) -> None:
        self.config = config
        n, L = config.n_strings, config.ring_size
        self.vocab = ("0", "1", *(f"Q{t}" for t in config.steps))
        self.context_length = n * L
        self.sequence_length = n * L + n

    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """See ``Task.sample``. ``slices``: ``t``, the number of steps of each row."""
        c = self.config
        states_BN = self.sample_states((batch_size, c.n_strings), generator, split)
        choice_B = torch.randint(len(c.steps), (batch_size,), generator=generator)
        answers_BN = torch.empty_like(states_BN)
        for i, t in enumerate(c.steps):
            rows = choice_B == i
            answers_BN[rows] = first_bit(evolve(states_BN[rows], t, c.ring_size), c.ring_size)
        shifts = torch.arange(c.ring_size - 1, -1, -1)
        bits = (states_BN[:, :, None] >> shifts & 1).flatten(1)
        tokens = torch.cat((bits, (2 + choice_B)[:, None], answers_BN[:, :-1]), 1)
        labels = torch.full_like(tokens, IGNORE)
        labels[:, -c.n_strings :] = answers_BN
        return TaskBatch(tokens, labels, {"t": torch.tensor(c.steps)[choice_B]})

    def sample_states(self, shape: tuple[int, ...], generator: torch.Generator, split: Split) -> Tensor:
        """Packed rings, uniform over the split's share of all ``2^ring_size``."""
        size = 1 << self.config.ring_size
        held_out = max(size // _HOLDOUT, 1)
        low, high = {"validation": (0, held_out), "test": (held_out, 2 * held_out)}.get(split, (2 * held_out, size))
        dealt = torch.randint(low, high, shape, generator=generator)
        # dealt = state * _ODD mod 2^L; int64 multiplication wraps, so the low L bits of the inverse are exact.
        return dealt * pow(_ODD, -1, size) & size - 1
