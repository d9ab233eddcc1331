"""What one question costs a session, and the memory behind it: known from the configuration.

A context of C tokens is read as it comes, and slept on window by window; then a question of q tokens asks for the first
token of an answer. Counted is what ``sleep`` and ``session`` run: a hybrid reads the question's tokens behind what its
window holds; loops when awake, retrieval and compaction run a window at once, and read it whole for every question.

**Q*.** Passes 2 to N over the context cost ``S_N - S_1`` once per memory. The same passes over the question
(``wake_passes``) cost ``A_N - A_1`` with every answer. Sleep is cheaper from ``Q* = (S_N - S_1) / (A_N - A_1)``
questions on: about the tokens of the context over those of a question.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeGuard

import torch

from sleep_lightning.config import Experiment
from sleep_lightning.config.outline import outline
from sleep_lightning.model import HybridLM, Memory, WindowModel
from sleep_lightning.model.open_window import open_window
from sleep_lightning.sleep import IGNORE, SleepConfig, Window, make_schedule, zero_memory
from sleep_lightning.sleep.counted_flops import logits_flops, summary_bytes
from sleep_lightning.sleep.retrieval import likeness_flops
from sleep_lightning.sleep.schedule import PassFlops

TOKEN = 8
"""Bytes of the id of a token."""
DRAWN = 64
"""Rows of the test split that are drawn to see how long a question is."""


@dataclass(frozen=True)
class AnswerCost:
    """One session and one question.

    Attributes:
        answer_flops: from the question to the first token of its answer: all that is read for it, and its logits.
        looped_flops: N passes over the question instead of one: what they add, ``A_N - A_1``.
        reading_flops: one pass over the context, as it came.
        sleep_flops: passes 2 to N over it, ``S_N - S_1``.
        held_bytes: what has to be kept for the next question: what crosses windows, and of tokens since then (without
            eviction: of all) keys and values, or ids where they are read again. A ``SleepSession`` has room for a
            whole window, and for its sleep: ``nbytes``.
    """

    answer_flops: int
    looped_flops: int
    reading_flops: int
    sleep_flops: int
    held_bytes: int

    @property
    def questions(self) -> float | None:
        """Q*; None without sleep."""
        return break_even(self.sleep_flops, self.looped_flops)


def break_even(sleep: float, per_answer: float) -> float | None:
    """Q*: questions from which a ``sleep`` is cheaper than ``per_answer`` with each, in one unit; None without both."""
    return sleep / per_answer if sleep > 0 and per_answer > 0 else None


class Asked(NamedTuple):
    """C tokens of context, and q of a question: up to that which the answer's first token follows."""

    context: int
    question: int


class Piece(NamedTuple):
    """Tokens ``first:stop`` of a question, in the window that begins at ``start``."""

    start: int
    first: int
    stop: int


def pieces(window_size: int, asked: Asked) -> Iterator[Piece]:
    """A question, window by window."""
    context, end = asked.context, sum(asked)
    for start in range(context // window_size * window_size, end, window_size):
        yield Piece(start, max(start, context), min(start + window_size, end))


def reads_token_by_token(model: WindowModel, config: SleepConfig) -> TypeGuard[HybridLM]:
    """Whether a question costs its own tokens alone, as in a ``SleepSession``; else its window is run at once."""
    plain = config.wake_passes == 1 and not config.retrieved_windows and not model.summary_tokens
    return isinstance(model, HybridLM) and plain


def answer_cost(model: WindowModel, config: SleepConfig, asked: Asked) -> AnswerCost:
    """Cost of a model's answer.

    Args:
        model: or its outline on the meta device.
        config: its sleep.
        asked: how much is read, and how long the question is.
    """
    flops, L = PassFlops(model, config), config.window_size
    slept = _evicted(asked.context // L * L, L)
    [planned] = make_schedule(model, slept, config) or [[]]
    left = asked.context % L
    reading = flops.of_reading(left, config.cached_tokens) if left else 0
    own = _answer_flops(model, config, asked, flops)
    looped = _answer_flops(model, replace(config, wake_passes=config.n_passes), asked, flops) - own
    return AnswerCost(
        answer_flops=own,
        looped_flops=looped if config.n_passes > 1 else 0,
        reading_flops=reading + sum(flops.of_reading(w.tokens, config.cached_tokens) for w in planned),
        sleep_flops=sum(flops.after_reading(w, config.n_passes) for w in planned),
        held_bytes=_held_bytes(model, config, asked.context),
    )


def _evicted(stop: int, window_size: int) -> list[Window]:
    return [Window(start, start + window_size, sleeps=True) for start in range(0, stop, window_size)]


def _answer_flops(model: WindowModel, config: SleepConfig, asked: Asked, flops: PassFlops) -> int:
    total = logits_flops(model, 1)
    for start, first, stop in pieces(config.window_size, asked):
        if reads_token_by_token(model, config):
            total += flops.of_reading(stop - first, config.cached_tokens + first - start)
            continue
        windows = [*_evicted(start, config.window_size), Window(start, stop, sleeps=False)]
        planned = make_schedule(model, windows, config)[0][-1]
        total += sum(flops(planned, p).forward.total() for p in planned.passes)
        total += likeness_flops(model, stop - start, start) if config.retrieved_windows else 0
    return total


def _held_bytes(model: WindowModel, config: SleepConfig, context: int) -> int:
    memory, evicted = zero_memory(model, 1, config), context // config.window_size
    if reads_token_by_token(model, config):
        return memory.nbytes + (context - evicted * config.window_size) * _kv_bytes(model)
    read_again = context if config.retrieved_windows else context % config.window_size
    return memory.nbytes + evicted * summary_bytes(model) + TOKEN * read_again


def _kv_bytes(model: HybridLM) -> int:
    """Keys and values of a token, in all blocks of attention."""
    _, cache = open_window(model, Memory(()), 1, rows=1)
    return sum(x.nbytes for x in (*cache.keys, *cache.values))


def asked_of(experiment: Experiment) -> Asked:
    """The first question of a sequence of the experiment's task: of rows that differ, the mean of some of its test.

    Where a search over the text cuts the context down (``task.kept=bm25``), what it finds is part of the question.
    """
    task = experiment.task.build()
    labels = task.batch(DRAWN, seed=0, position=0, split="test").labels
    first = (labels != IGNORE).to(torch.int8).argmax(1)
    asked = Asked(task.context_length, max(1, round(float(first.double().mean())) + 1 - task.context_length))
    return Asked(0, asked.context + asked.question) if _searches(experiment) else asked


def experiment_answer_cost(experiment: Experiment, asked: Asked) -> AnswerCost:
    """``answer_cost`` of an experiment's model on its task, of what ``asked_of`` it says."""
    cost = answer_cost(outline(experiment), experiment.sleep, asked)
    if _searches(experiment):
        whole = replace(experiment.task, kept="all").build().context_length  # type: ignore[type-var]
        cost = replace(cost, held_bytes=cost.held_bytes + TOKEN * whole)
    return cost


def _searches(experiment: Experiment) -> bool:
    return getattr(experiment.task, "kept", "all") == "bm25"
