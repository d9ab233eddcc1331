"""Depo: k hops along a directed cycle whose edges were read in random order and have left the window.

Sequence (method 4.2): ``pad ... pad | name(u) name(next(u)) ... | K_k name(u) [ANS] name(k-th successor) ... pad``.
A name is one or more tokens, the last from a separate alphabet; the edges fill the context from the
right, the queries the rest from the left. Start node and k are random, so the memory must serve any query. Labels
are ``[ANS]`` and the answer's name, each at the position before it.
"""

from dataclasses import dataclass, field
from math import perm
from typing import Literal

import torch
from torch import Tensor

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.dealing import FEWEST, in_split, share_of_set
from sleep_lightning.tasks.task import Split, Task, TaskBatch

PAD, ANSWER = 0, 1
_FIRST_HOP = 2
_MOST_NAMES = 20_000


@dataclass
class DepoConfig:
    name: str = "depo"
    """Name of the task."""
    n_nodes: int = field(default=8, metadata={"high": 2**16})
    """Nodes of a cycle, the most there are; validation and test always have that many."""
    min_nodes: int | None = field(default=None, metadata={"high": 2**16})
    """Fewest nodes in training, n drawn with weight 1 / (n + sqrt(n_nodes)); null: always n_nodes."""
    max_hops: int = field(default=4, metadata={"high": 2**16})
    """K: hops of a query are uniform in 1..K."""
    test_hops: list[int] | None = field(default=None, metadata={"high": 2**16})
    """Hops of validation and test queries, uniform; null: 1..K as in training."""
    n_queries: int = field(default=8, metadata={"high": 2**16})
    """Queries after each cycle (of n nodes at most n), from different nodes."""
    name_symbols: int = field(default=8, metadata={"high": 2**16})
    """Alphabet of each token of a name; last tokens have an alphabet of their own of the same size."""
    name_lengths: tuple[int, int] = field(default=(1, 1), metadata={"high": 64})
    """Fewest and most tokens of a name, uniform."""
    context_tokens: int | None = field(default=None, metadata={"high": 2**24})
    """Length of the padded context; null: what the longest cycle needs."""
    pad: Literal["token", "neutral"] = "token"
    """Pads are ordinary tokens, or neutral: not attended to, no write, no decay."""

    def __post_init__(self) -> None:
        shortest, longest = self.name_lengths
        if not 1 <= shortest <= longest:
            raise ValueError(f"task.name_lengths={list(self.name_lengths)} must be fewest and most, from 1; try [1, 2]")
        if self.name_symbols < 1 or self.n_names > _MOST_NAMES or self.n_names < self.n_nodes:
            raise ValueError(
                f"task.name_symbols={self.name_symbols} with task.name_lengths={list(self.name_lengths)} makes "
                f"{self.n_names} names; there must be from task.n_nodes={self.n_nodes} to {_MOST_NAMES}"
            )
        if not 3 <= (self.n_nodes if self.min_nodes is None else self.min_nodes) <= self.n_nodes:
            key = f"task.n_nodes={self.n_nodes}" if self.min_nodes is None else f"task.min_nodes={self.min_nodes}"
            raise ValueError(f"{key} must be from 3 to task.n_nodes={self.n_nodes} nodes")
        if (cycles := perm(self.n_names, self.n_nodes) // self.n_nodes) < FEWEST:
            raise ValueError(
                f"task.name_symbols={self.name_symbols} with task.n_nodes={self.n_nodes} makes {cycles} cycles, and it "
                f"takes {FEWEST} to split; raise task.name_symbols"
            )
        if self.max_hops < 1 or self.n_queries < 1:
            raise ValueError(f"task.max_hops={self.max_hops} and task.n_queries={self.n_queries} must be at least 1")
        if self.test_hops is not None and (
            not self.test_hops or not 1 <= min(self.test_hops) <= max(self.test_hops) <= self.max_hops
        ):
            raise ValueError(
                f"task.test_hops={self.test_hops} must list hops from 1 to task.max_hops={self.max_hops}, or be null"
            )
        if self.context_tokens is not None and self.context_tokens < self.longest_cycle:
            raise ValueError(
                f"task.context_tokens={self.context_tokens} cannot hold a cycle of task.n_nodes={self.n_nodes}: with "
                f"names of up to {longest} tokens it takes up to {self.longest_cycle}; use at least that"
            )

    @property
    def n_names(self) -> int:
        """Number of different names."""
        shortest, longest = self.name_lengths
        return sum(self.name_symbols**length for length in range(shortest, longest + 1))

    @property
    def longest_cycle(self) -> int:
        """Tokens of a cycle of ``n_nodes`` when all names are long."""
        return self.n_nodes * 2 * self.name_lengths[1]

    def build(self) -> "Depo":
        return Depo(self)


class Depo(Task):
    """Splits share no cycle: a rotation-invariant hash assigns 1/16 each to validation and test.

    Attributes:
        names: tokens of every name ``[n_names, longest]``, PAD behind the shorter ones.
    """

    def __init__(self, config: DepoConfig) -> None:
        self.config = c = config
        shortest, longest = c.name_lengths
        inner = [f"n{i}" for i in range(c.name_symbols)] if longest > 1 else []
        last = [f"N{i}" for i in range(c.name_symbols)]
        self.vocab = ("<pad>", "[ANS]", *(f"K{k}" for k in range(1, c.max_hops + 1)), *inner, *last)
        self.names = torch.cat([self._names(length, len(inner)) for length in range(shortest, longest + 1)])
        lengths = (self.names != PAD).sum(1)
        self.name_weights = 1.0 / torch.bincount(lengths, minlength=longest + 1)[lengths].double()
        self.context_length = c.context_tokens or c.longest_cycle
        self.sequence_length = self.context_length + c.n_queries * (2 + 2 * longest)
        self.neutral_pad = PAD if c.pad == "neutral" else None

    def _names(self, length: int, n_inner: int) -> Tensor:
        """All names of one length, ``[symbols ** length, longest]``."""
        c = self.config
        digits = (
            torch.arange(c.name_symbols**length)[:, None] // c.name_symbols ** torch.arange(length) % c.name_symbols
        )
        first_inner = _FIRST_HOP + c.max_hops
        offsets = torch.tensor([first_inner] * (length - 1) + [first_inner + n_inner])
        return torch.nn.functional.pad(digits + offsets, (0, c.name_lengths[1] - length), value=PAD)

    def sample(self, batch_size: int, generator: torch.Generator, split: Split = "train") -> TaskBatch:
        """See ``Task.sample``. ``slices``: ``hop`` of every query, and ``nodes`` of the row if cycles differ."""
        c = self.config
        cycle_BN, n_B = self._sample_cycles(batch_size, generator, split)
        position_N = torch.arange(c.n_nodes)
        absent_BN = position_N >= n_B[:, None]
        successor_BN = cycle_BN.gather(1, (position_N + 1) % n_B[:, None] % c.n_nodes)
        order_BN = _shuffled(absent_BN, generator)
        edges_BN2 = torch.stack((cycle_BN, successor_BN), 2).gather(1, order_BN[:, :, None].expand(-1, -1, 2))
        spelled = self.names[edges_BN2].masked_fill(absent_BN[:, :, None, None], PAD).flatten(1)
        context = _packed(spelled, spelled != PAD, self.context_length, right=True)

        hop_BQ = self._sample_hops((batch_size, c.n_queries), generator, split)
        start_BN = _shuffled(absent_BN, generator)
        start_BQ = start_BN[:, torch.arange(c.n_queries) % c.n_nodes]
        asked_BQ = torch.arange(c.n_queries) < n_B[:, None]
        answer_BQ = cycle_BN.gather(1, (start_BQ + hop_BQ) % n_B[:, None])
        queries, labels, answers = self._spell_queries(cycle_BN.gather(1, start_BQ), hop_BQ, answer_BQ, asked_BQ)
        blank = torch.full_like(context, IGNORE)
        slices = {"hop": hop_BQ} | ({"nodes": n_B} if c.min_nodes not in (None, c.n_nodes) else {})
        return TaskBatch(
            torch.cat((context, queries), 1),
            torch.cat((blank, labels), 1),
            slices,
            torch.cat((torch.zeros_like(context), answers), 1),
        )

    def _spell_queries(
        self, start_BQ: Tensor, hop_BQ: Tensor, answer_BQ: Tensor, asked_BQ: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, labels and the number of the query, each ``[B, query tokens]``."""
        hop = (_FIRST_HOP - 1 + hop_BQ)[:, :, None]
        question = torch.cat((hop, self.names[start_BQ]), 2)
        reply = torch.cat((torch.full_like(hop, ANSWER), self.names[answer_BQ]), 2)
        tokens = torch.cat((question, reply), 2).masked_fill(~asked_BQ[:, :, None], PAD)
        spoken = torch.cat((torch.zeros_like(question), torch.ones_like(reply)), 2)
        number = torch.arange(hop_BQ.shape[1])[:, None].expand_as(tokens)
        width = tokens.shape[1] * tokens.shape[2]
        present = (tokens != PAD).flatten(1)
        packed = [_packed(x.flatten(1), present, width, right=False) for x in (tokens, spoken, number)]
        # each label one position earlier, aligned to the logits
        following, said, who = (torch.nn.functional.pad(x[:, 1:], (0, 1)) for x in packed)
        return packed[0], torch.where(said == 1, following, IGNORE), who

    def _sample_hops(self, shape: tuple[int, int], generator: torch.Generator, split: Split) -> Tensor:
        choices = self.config.test_hops if split != "train" else None
        hops = torch.tensor(choices or range(1, self.config.max_hops + 1))
        return hops[torch.randint(len(hops), shape, generator=generator)]

    def _sample_cycles(self, batch_size: int, generator: torch.Generator, split: Split) -> tuple[Tensor, Tensor]:
        """Cycles of the split: names in order of succession ``[B, n_nodes]`` (the first n count) and n ``[B]``."""
        kept: list[tuple[Tensor, Tensor]] = []
        while sum(len(n) for _, n in kept) < batch_size:
            cycle, n = self._draw_cycles(2 * batch_size, generator, split)
            mine = in_split(self.deal(cycle, n), split)
            kept.append((cycle[mine], n[mine]))
        cycles, sizes = (torch.cat(parts)[:batch_size] for parts in zip(*kept, strict=True))
        return cycles, sizes

    def _draw_cycles(self, rows: int, generator: torch.Generator, split: Split) -> tuple[Tensor, Tensor]:
        c = self.config
        n = torch.full((rows,), c.n_nodes)
        if c.min_nodes is not None and split == "train":
            sizes = torch.arange(c.min_nodes, c.n_nodes + 1)
            weights = 1 / (sizes + c.n_nodes**0.5)
            n = sizes[torch.multinomial(weights, rows, replacement=True, generator=generator)]
        # exponential clocks: the first to ring are a sample without replacement, as if names were drawn one by one
        clocks = torch.empty(rows, c.n_names).exponential_(generator=generator) / self.name_weights.float()
        names = clocks.topk(c.n_nodes, largest=False, sorted=True).indices
        order = torch.rand(rows, c.n_nodes, generator=generator).masked_fill_(torch.arange(c.n_nodes) >= n[:, None], 2)
        return names.gather(1, order.argsort(1)), n

    def deal(self, cycle_BN: Tensor, n_B: Tensor) -> Tensor:
        """Which of 16 shares a cycle belongs to, whatever its first node: 0 validation, 1 test."""
        absent_BN = torch.arange(cycle_BN.shape[1]) >= n_B[:, None]
        successor_BN = cycle_BN.gather(1, (torch.arange(cycle_BN.shape[1]) + 1) % n_B[:, None])
        return share_of_set(cycle_BN * self.config.n_names + successor_BN, absent_BN)


def _shuffled(absent_BN: Tensor, generator: torch.Generator) -> Tensor:
    """Positions in random order, absent ones last."""
    return torch.rand(absent_BN.shape, generator=generator).masked_fill_(absent_BN, 2).argsort(1)


def _packed(x_BT: Tensor, present_BT: Tensor, width: int, right: bool) -> Tensor:
    """Present tokens side by side at one end of ``[B, width]``, 0 elsewhere."""
    order = (present_BT if right else ~present_BT).to(torch.int8).argsort(dim=1, stable=True)
    packed = x_BT.gather(1, order).masked_fill(~present_BT.gather(1, order), 0)
    gap = width - x_BT.shape[1]
    return torch.nn.functional.pad(packed, (gap, 0) if right else (0, gap))
