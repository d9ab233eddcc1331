"""What an injection says: cycles of Depo, and windows that restate them with wrong edges.

Shape suffixes: B sequences, L tokens of a window, H hops, V vocabulary, N nodes of a cycle.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sleep_lightning.config import Experiment
from sleep_lightning.tasks.depo import Depo

WRONG = 4
"""Edges that a poisoned window states wrongly: those of a cycle in which two nodes have changed places."""


@dataclass(frozen=True)
class Poison:
    """Sequences, each with a true cycle and a false one.

    Attributes:
        edges_BN2: the true edges; in ``false_BN2`` the first ``WRONG`` are the wrong ones.
        false_BN2: what a poisoned window says.
        questions_BHQ: for each number of hops a question whose answers differ: "K2 N3 [ANS]".
        right_BH: the true answers.
        wrong_BH: the answers of the false cycle.
        hops: token of each number of hops, 1 to K.
        answer: the token "[ANS]".
    """

    edges_BN2: Tensor
    false_BN2: Tensor
    questions_BHQ: Tensor
    right_BH: Tensor
    wrong_BH: Tensor
    hops: tuple[int, ...]
    answer: int

    @classmethod
    def of(cls, experiment: Experiment, sequences: int, seed: int = 0) -> Self:
        """Cycles of the test split.

        Raises:
            ValueError: a task other than Depo, or one whose cycle is not a window of names of one token.
        """
        task, L = experiment.task.build(), experiment.sleep.window_size
        if not isinstance(task, Depo):
            raise ValueError(f"injection restates edges of depo, and the model is of {experiment.task.name}")
        if task.names.shape[1] > 1 or not L == task.context_length == 2 * task.config.n_nodes or L < 2 * WRONG:
            raise ValueError(
                f"injection restates a cycle in one window: sleep.window_size={L} must be twice "
                f"task.n_nodes={task.config.n_nodes}, from 4, and task.name_lengths=[1, 1]"
            )
        g = torch.Generator().manual_seed(seed)
        batch = task.batch(sequences, seed=seed, position=0, split="test")
        edges_BN2, V = batch.tokens[:, :L].unflatten(1, (-1, 2)), len(task.vocab)
        next_BV = _successors(edges_BN2, V)
        a = edges_BN2[:, :1, 0]
        b = next_BV.gather(1, next_BV.gather(1, a))  # two further: both edges of each are wrong, and four in all
        renamed_BV = torch.arange(V).repeat(sequences, 1).scatter(1, a, b).scatter(1, b, a)
        false_BN2 = renamed_BV.gather(1, edges_BN2.flatten(1)).unflatten(1, (-1, 2))
        wrong_BN = next_BV.gather(1, false_BN2[..., 0]) != false_BN2[..., 1]
        order_BN = (torch.rand(wrong_BN.shape, generator=g) + ~wrong_BN).argsort(1)
        false_BN2 = false_BN2.gather(1, order_BN[..., None].expand(-1, -1, 2))

        answer = task.vocab.index("[ANS]")
        hops = tuple(task.vocab.index(f"K{h + 1}") for h in range(task.config.max_hops))
        questions, right, wrong, nodes_BN = [], [], [], edges_BN2[..., 0]
        true_BN = said_BN = nodes_BN
        for hop in hops:
            true_BN = next_BV.gather(1, true_BN)
            said_BN = _successors(false_BN2, V).gather(1, said_BN)
            pick_B1 = (torch.rand(true_BN.shape, generator=g) + (true_BN != said_BN)).argmax(1, keepdim=True)
            start, *answers = (x.gather(1, pick_B1) for x in (nodes_BN, true_BN, said_BN))
            questions.append(torch.cat((torch.full_like(start, hop), start, torch.full_like(start, answer)), 1))
            right.append(answers[0])
            wrong.append(answers[1])
        return cls(
            edges_BN2, false_BN2, torch.stack(questions, 1), torch.cat(right, 1), torch.cat(wrong, 1), hops, answer
        )

    def restated(self, seed: int) -> Tensor:
        """The true edges in another order, ``[B, L]``."""
        g = torch.Generator().manual_seed(seed)
        order_BN = torch.rand(self.edges_BN2.shape[:2], generator=g).argsort(1)
        return self.edges_BN2.gather(1, order_BN[..., None].expand(-1, -1, 2)).flatten(1)

    def asked(self, seed: int) -> Tensor:
        """A question about any node with any number of hops, ``[B, 3]``."""
        g, (B, N) = torch.Generator().manual_seed(seed), self.edges_BN2.shape[:2]
        start_B1 = self.edges_BN2[..., 0].gather(1, torch.randint(N, (B, 1), generator=g))
        hop_B1 = torch.tensor(self.hops)[torch.randint(len(self.hops), (B, 1), generator=g)]
        return torch.cat((hop_B1, start_B1, torch.full_like(hop_B1, self.answer)), 1)


def _successors(edges_BN2: Tensor, V: int) -> Tensor:
    """The node behind each, by token."""
    return torch.zeros(len(edges_BN2), V, dtype=torch.int64).scatter(1, edges_BN2[..., 0], edges_BN2[..., 1])
