"""What a pass costs in time: training throughput over N, and over the window size down from the whole sequence."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from sleep_lightning.bench.step import Setting, our_step
from sleep_lightning.bench.worker import Worker
from sleep_lightning.config import Experiment
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.timing import interleave, ratio, summarize

PASSES = (1, 2, 3, 4, 6)
WINDOWS = (24, 48, 96, 192)
STRINGS = 8
"""Windows of 24 tokens in the timed sequence."""


@dataclass(frozen=True)
class Speed:
    """A timed training step.

    Attributes:
        question: ``passes`` or ``windows``.
        n_passes: N.
        window_size: tokens.
        times_slower: time relative to the first of its question (N = 1, or the whole sequence in one window), as the
            median of the ratios in each round.
        flops_ratio: FLOPs relative to the first.
        tokens_per_s: training throughput.
        median_ms: median time of a step.
        rounds: rounds timed.
        threads: CPU threads.
    """

    question: str
    n_passes: int
    window_size: int
    times_slower: float
    flops_ratio: float
    tokens_per_s: float
    median_ms: float
    rounds: int
    threads: int


def measure(seconds: float) -> Iterator[Speed]:
    """Time both questions, contenders interleaved, each in a process of its own."""
    plain = Setting(1, batch=32, strings=STRINGS, d_model=128).experiment()
    yield from _time("passes", [_sleeping(plain, n_passes=n) for n in PASSES], seconds)
    whole = _sleeping(plain, window_size=plain.task.build().sequence_length)
    yield from _time("windows", [whole, *(_sleeping(plain, window_size=L) for L in reversed(WINDOWS))], seconds)


def _sleeping(experiment: Experiment, **changes: int) -> Experiment:
    return replace(experiment, sleep=replace(experiment.sleep, **changes))  # type: ignore[arg-type]


def _time(question: str, experiments: Sequence[Experiment], seconds: float) -> Iterator[Speed]:
    names = [f"N={e.sleep.n_passes} L={e.sleep.window_size}" for e in experiments]
    batches = [e.task.build().batch(e.training.batch_size, seed=0, position=0) for e in experiments]
    with ExitStack() as stack:
        steps = {
            name: stack.enter_context(Worker(our_step, experiment, batch))
            for name, experiment, batch in zip(names, experiments, batches, strict=True)
        }
        times = interleave(steps, seconds, rounds=5, warm=False)
    first, flops = names[0], sequence_cost(experiments[0]).total
    for name, e, batch in zip(names, experiments, batches, strict=True):
        timing = summarize(times[name])
        yield Speed(
            question=question,
            n_passes=e.sleep.n_passes,
            window_size=e.sleep.window_size,
            times_slower=1.0 if name == first else ratio(times[name], times[first]),
            flops_ratio=sequence_cost(e).total / flops,
            tokens_per_s=batch.tokens.numel() / timing.median,
            median_ms=1e3 * timing.median,
            rounds=timing.rounds,
            threads=torch.get_num_threads(),
        )
