"""Multi-query associative recall, token by token (MQAR; the recipe of zoology, arXiv:2312.04927).

Sequence: ``k v | k v | filler ... | k' filler filler ...``: pairs of a key and a value, each pair in a slot of two
tokens among slots of filler, evicted before the query part, where keys come again. The label of a key is its value.
Gaps between queries follow the recipe's power law. Filler has an alphabet of its own, so that it never looks like a
pair. With the question before the context its keys are listed first, in the order in which ``?1 ?2 ...`` ask for them.
"""

from dataclasses import dataclass, field
from math import comb, perm
from typing import Literal

import torch
from torch import Tensor

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.dealing import FEWEST, in_split, share_of_set
from sleep_lightning.tasks.task import Split, Task, TaskBatch

QUARTERS = 4
"""Values of the slice ``depth``: in which quarter of the context the evidence stands."""


@dataclass
class MQARConfig:
    name: str = "mqar"
    """Name of the task."""
    pairs: list[int] = field(default_factory=lambda: [8], metadata={"high": 2**12})
    """Pairs of key and value; each sequence draws one of these numbers."""
    n_queries: int | None = field(default=None, metadata={"high": 2**12})
    """Queries, of different keys; null: as many as the most pairs. A sequence of fewer pairs asks for each once."""
    n_keys: int = field(default=32, metadata={"high": 2**16})
    """Keys there are."""
    n_values: int = field(default=32, metadata={"high": 2**16})
    """Values there are; those of a sequence differ from each other."""
    n_fillers: int = field(default=8, metadata={"high": 2**16})
    """Filler tokens there are."""
    context_tokens: int | None = field(default=None, metadata={"high": 2**24})
    """Tokens of the context, filler fills it up; null: what the most pairs need."""
    query_tokens: int | None = field(default=None, metadata={"high": 2**24})
    """Tokens of the query part; null: two a query."""
    power: float = 0.01
    """Exponent a of the gaps: slot i of the query part is asked in with weight i^(a - 1)."""
    question: Literal["behind", "before", "both"] = "behind"
    """Where the queried keys are read: behind the context, before it, or one of the two drawn for each sequence."""

    def __post_init__(self) -> None:
        if not self.pairs or min(self.pairs) < 1 or len(set(self.pairs)) < len(self.pairs):
            raise ValueError(f"task.pairs={self.pairs} must list different numbers >= 1, for example [8]")
        most = max(self.pairs)
        for key in ("n_keys", "n_values"):
            if getattr(self, key) < most:
                raise ValueError(
                    f"task.{key}={getattr(self, key)} is less than the {most} pairs of a sequence; use more"
                )
        if comb(self.n_keys, min(self.pairs)) * perm(self.n_values, min(self.pairs)) < FEWEST:
            raise ValueError(
                f"task.n_keys={self.n_keys} and task.n_values={self.n_values} make fewer than {FEWEST} sets of "
                f"{min(self.pairs)} pairs, too few to split; raise them"
            )
        if self.n_fillers < 1 or not 1 <= self.queries <= most:
            raise ValueError(
                f"task.n_fillers={self.n_fillers} must be at least 1, and task.n_queries={self.n_queries} from 1 to "
                f"the {most} pairs"
            )
        if not 0 <= self.power <= 1:
            raise ValueError(f"task.power={self.power} must be from 0 (queries come early) to 1 (evenly)")
        for key, least in (("context_tokens", self.prefix + 2 * most), ("query_tokens", 2 * self.queries)):
            value = getattr(self, key)
            if value is not None and (value < least or value % 2):
                raise ValueError(f"task.{key}={value} must be even and at least {least}, two a slot; or null")

    @property
    def queries(self) -> int:
        """Queries of a sequence, the most there are."""
        return max(self.pairs) if self.n_queries is None else self.n_queries

    @property
    def prefix(self) -> int:
        """Tokens before the pairs: room for the queried keys."""
        return 0 if self.question == "behind" else self.queries + self.queries % 2

    def build(self) -> "MQAR":
        return MQAR(self)


class MQAR(Task):
    """Splits share no mapping: a hash of a sequence's set of pairs assigns 1/16 each to validation and test."""

    def __init__(self, config: MQARConfig) -> None:
        self.config = c = config
        slots = [] if c.question == "behind" else [f"?{i + 1}" for i in range(c.queries)]
        kinds = (("f", c.n_fillers), ("k", c.n_keys), ("v", c.n_values))
        self.vocab = (*(f"{kind}{i}" for kind, n in kinds for i in range(n)), *slots)
        self._key, self._value = c.n_fillers, c.n_fillers + c.n_keys
        self._slot = self._value + c.n_values
        self.context_length = c.context_tokens or c.prefix + 2 * max(c.pairs)
        self.sequence_length = self.context_length + (c.query_tokens or 2 * c.queries)

    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """See ``Task.sample``. ``slices``: ``depth`` of every answer (quarter of the context its pair stands in);
        ``pairs`` and ``before`` (the question came first) where they differ."""
        c, B, Q = self.config, batch_size, self.config.queries
        key_BP, value_BP, n_B = self._sample_pairs(B, generator, split)
        absent_BP = torch.arange(key_BP.shape[1]) >= n_B[:, None]
        tokens = torch.randint(c.n_fillers, (B, self.sequence_length), generator=generator)
        tokens = torch.nn.functional.pad(tokens, (0, 1))  # one column more takes what is not there

        n_slots = (self.context_length - c.prefix) // 2
        slot_BP = torch.rand(B, n_slots, generator=generator).argsort(1)[:, : key_BP.shape[1]]
        at_BP = (c.prefix + 2 * slot_BP).masked_fill(absent_BP, self.sequence_length)
        tokens.scatter_(1, at_BP, key_BP + self._key)
        tokens.scatter_(1, (at_BP + 1).clamp(max=self.sequence_length), value_BP + self._value)

        asked_BQ = torch.rand(B, key_BP.shape[1], generator=generator).masked_fill_(absent_BP, 2).argsort(1)[:, :Q]
        unasked_BQ = absent_BP.gather(1, asked_BQ)
        before_B = self._sample_before(B, generator)
        where_BQ = self._sample_gaps(B, generator).masked_fill(unasked_BQ, self.sequence_length)
        key_BQ = key_BP.gather(1, asked_BQ) + self._key
        order_Q = torch.arange(Q)
        tokens.scatter_(1, where_BQ, torch.where(before_B[:, None], order_Q + self._slot, key_BQ))
        first = order_Q.masked_fill(~before_B[:, None] | unasked_BQ, self.sequence_length)
        tokens.scatter_(1, first, key_BQ)

        labels = torch.full_like(tokens, IGNORE).scatter_(1, where_BQ, value_BP.gather(1, asked_BQ) + self._value)
        answers = torch.zeros_like(tokens).scatter_(1, where_BQ, order_Q.expand(B, -1))
        slices = {"depth": slot_BP.gather(1, asked_BQ) * QUARTERS // n_slots}
        slices |= {"pairs": n_B} if len(c.pairs) > 1 else {}
        slices |= {"before": before_B.long()} if c.question == "both" else {}
        return TaskBatch(tokens[:, :-1], labels[:, :-1], slices, answers[:, :-1])

    def _sample_before(self, rows: int, generator: torch.Generator) -> Tensor:
        if self.config.question == "both":
            return torch.rand(rows, generator=generator) < 0.5
        return torch.full((rows,), self.config.question == "before")

    def _sample_gaps(self, rows: int, generator: torch.Generator) -> Tensor:
        """Positions of the queries: slots drawn one by one without replacement, as exponential clocks ring."""
        weights = torch.arange(1, (self.sequence_length - self.context_length) // 2 + 1) ** (self.config.power - 1)
        clocks = torch.empty(rows, len(weights)).exponential_(generator=generator) / weights
        return self.context_length + 2 * clocks.topk(self.config.queries, largest=False, sorted=True).indices

    def _sample_pairs(self, rows: int, generator: torch.Generator, split: Split) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values ``[B, most pairs]`` of the split (the first n count) and n ``[B]``."""
        c, kept, found = self.config, list[tuple[Tensor, ...]](), 0
        numbers, P = torch.tensor(c.pairs), max(c.pairs)
        while found < rows:
            draw = 2 * rows
            n = numbers[torch.randint(len(numbers), (draw,), generator=generator)]
            keys, values = (
                torch.rand(draw, size, generator=generator).topk(P).indices for size in (c.n_keys, c.n_values)
            )
            share = share_of_set(keys * c.n_values + values, torch.arange(P) >= n[:, None])
            mine = in_split(share, split)
            kept.append((keys[mine], values[mine], n[mine]))
            found += int(mine.sum())
        keys, values, n = (torch.cat(parts)[:rows] for parts in zip(*kept, strict=True))
        return keys, values, n
