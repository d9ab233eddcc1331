"""FLOPs of a training step, known before step 0: a pure function of the configuration.

Counted are the matrix products, the attention and the memory rules as the window loop runs them (a multiply-add is 2
FLOPs); norms, activations and other elementwise work are not. Layer by layer, ``pass_input: embed`` takes fewer.
``tests/cost/test_flops.py`` holds it against a count of the operations torch dispatches.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sleep_lightning.config import Experiment
from sleep_lightning.model import ModelConfig
from sleep_lightning.model.jet import REDUCTION
from sleep_lightning.ops.chunks import chunk_length
from sleep_lightning.sleep import WHOLE_PASSES, SleepConfig, Window


@dataclass(frozen=True)
class Cost:
    """FLOPs of one sequence in training.

    Attributes:
        forward: by component (embedding look-ups cost no FLOPs).
        backward: by component, recomputation under checkpointing included.
        by_pass: forward and backward of pass 1, 2, ... N over all windows; an answer window is a pass 1
            (if ``wake_passes`` is 1), a prelude belongs to the first pass and a coda to the last.
        sleeping, answering: forward and backward of the windows that sleep, and of those with answers.
    """

    forward: Counter[str]
    backward: Counter[str]
    by_pass: tuple[int, ...]
    sleeping: int
    answering: int

    @property
    def total(self) -> int:
        return self.forward.total() + self.backward.total()


def planned_windows(sequence_length: int, context_length: int, window_size: int) -> list[Window]:
    """The plan of ``sleep.plan_windows`` for labels that begin at ``context_length``, without any tensor."""
    starts = range(0, sequence_length, window_size)
    stops = [min(start + window_size, sequence_length) for start in starts]
    return [Window(start, stop, stop <= context_length) for start, stop in zip(starts, stops, strict=True)]


def sequence_cost(experiment: Experiment) -> Cost:
    """Cost of one sequence of the experiment's task."""
    task, model, sleep = experiment.task.build(), experiment.model, experiment.sleep
    forward: Counter[str] = Counter()
    backward: Counter[str] = Counter()
    by_pass = [0] * max(sleep.n_passes, sleep.wake_passes)
    by_kind = Counter({True: 0, False: 0})
    policy = experiment.training.checkpointing
    gradient_from = sleep.n_passes - (sleep.grad_passes or sleep.n_passes)
    summaries, m = 0, model.summary_tokens
    windows = planned_windows(task.sequence_length, task.context_length, sleep.window_size)
    reached = windows_with_gradient(windows, sleep.truncated, experiment.training.tbptt_windows)
    for window, has_gradient in zip(windows, reached, strict=True):
        own = window.stop - window.start
        T = own + summaries
        if window.sleeps:
            T, summaries = T + m, summaries + m
        else:
            T += min(sleep.retrieved_windows, window.start // sleep.window_size) * sleep.window_size
        for n, part, write_only in window_passes(model, sleep, window):
            ahead, back = pass_cost(model, T, write_only, part, sleep.cached_tokens)
            if not window.sleeps and part.stop == len(model.pattern) and n == sleep.wake_passes - 1:
                ahead["head"] = 2 * own * model.d_model * len(task.vocab)
                back["head"] = 2 * ahead["head"]
                ahead["retrieval"] = 2 * own * window.start * model.d_model if sleep.retrieved_windows else 0
            if not has_gradient or (window.sleeps and n < gradient_from):
                back.clear()
            elif policy in WHOLE_PASSES:
                back += Counter({k: v for k, v in ahead.items() if k not in ("head", "retrieval")})
            elif policy == "mlp":
                back["mlp"] += ahead["mlp"] * 2 // 3  # gate and up; the third product is not needed again
            forward += ahead
            backward += back
            by_pass[n] += ahead.total() + back.total()
            by_kind[window.sleeps] += ahead.total() + back.total()
    return Cost(forward, backward, tuple(by_pass), by_kind[True], by_kind[False])


def windows_with_gradient(windows: list[Window], truncated: bool, tbptt_windows: int | None) -> list[bool]:
    """Which windows the loss reaches: memory is detached every k windows, and before each that sleeps truncated."""
    k = tbptt_windows or len(windows)
    reached: list[bool] = []
    for first in range(0, len(windows), k):
        segment: list[bool] = []
        wanted = False
        for window in reversed(windows[first : first + k]):
            wanted = wanted or not window.sleeps
            segment.append(wanted)
            wanted = wanted and not (truncated and window.sleeps)
        reached += reversed(segment)
    return reached


def window_passes(model: ModelConfig, sleep: SleepConfig, window: Window) -> Iterator[tuple[int, range, bool]]:
    """What ``sleep`` and ``wake`` run over a window: the pass (from 0), the blocks, and whether they only write."""
    prelude, core, coda = sleep.parts(len(model.pattern))
    N = sleep.n_passes if window.sleeps else sleep.wake_passes
    whole = not window.sleeps or model.summary_tokens > 0
    tail = bool(coda) if whole else model.last_writer(coda, cached=sleep.cached_tokens > 0) >= 0
    if prelude:
        yield 0, prelude, False
    for n in range(N):
        yield n, core, not whole and not tail and n == N - 1
    if tail:
        yield N - 1, coda, not whole


def pass_cost(
    model: ModelConfig, T: int, write_only: bool, part: range | None = None, cached_tokens: int = 0
) -> tuple[Counter[str], Counter[str]]:
    """Forward and backward FLOPs of one pass of the block stack, or a part of it, over T tokens of one sequence."""
    forward: Counter[str] = Counter()
    backward: Counter[str] = Counter()
    d = model.d_model
    blocks = range(len(model.pattern)) if part is None else part
    last = model.last_writer(blocks, cached=cached_tokens > 0)
    for index in range(blocks.start, last + 1) if write_only else blocks:
        dense: Counter[str] = Counter()
        writes = write_only and index == last
        if model.pattern[index] == "A":
            dense["projections"] = 2 * T * d * (3 if writes else 4) * d
            dense["attention"] = 0 if writes else 4 * T * (T + cached_tokens) * d
        else:
            rule_forward, rule_backward = rule_cost(model, model.pattern[index], T, read=not writes)
            forward["memory_rule"] += rule_forward
            backward["memory_rule"] += rule_backward
            dense["projections"] = 2 * T * memory_weights(model, model.pattern[index], read=not writes)
        if not writes:
            dense["mlp"] = 6 * T * d * model.mlp_width
        forward += dense
        backward += Counter({name: 2 * flops for name, flops in dense.items()})
    return forward, backward


def memory_weights(model: ModelConfig, letter: str, read: bool = True) -> int:
    """Weights of the projections of a fast-weight block that a token passes through."""
    H, keys = model.fast_weight_heads, model.fast_weight_heads * model.key_dim_per_head
    values = model.fast_weight_heads * model.value_dim_per_head
    rows, weights = keys + values + (H if letter == "D" else 2 * H), 0  # k, v, gates
    if letter == "J":
        hidden = max(1, values // REDUCTION)
        rows, weights = rows + hidden, hidden * model.conv_size * values
    if read:
        rows, weights = rows + keys + values, weights + model.d_model * values  # q and the output gate; the output
    return weights + model.d_model * rows


def rule_cost(model: ModelConfig, letter: str, T: int, read: bool = True) -> tuple[int, int]:
    """Forward and backward FLOPs of the rule of a fast-weight block over T tokens of one sequence."""
    cost = gated_hebbian_cost if letter == "H" else delta_rule_cost
    return cost(T, model.fast_weight_heads, model.key_dim_per_head, model.value_dim_per_head, read)


def gated_hebbian_cost(T: int, H: int, K: int, V: int, read: bool = True) -> tuple[int, int]:
    """Matrix products of ``ops.gated_hebbian`` in chunked form."""
    C = chunk_length(T)
    forward = 2 * C * K * V
    if read:
        forward += 2 * C * K * V + 2 * C * C * (K + V)
    return H * math.ceil(T / C) * forward, 2 * H * math.ceil(T / C) * forward


def delta_rule_cost(T: int, H: int, K: int, V: int, read: bool = True) -> tuple[int, int]:
    """Matrix products of ``ops.gated_delta_rule`` in chunked form (the triangular solve counts C^3 / 3)."""
    C = chunk_length(T)
    chunks, rows = math.ceil(T / C), 2 if read else 1
    forward = 2 * rows * C * C * K + C**3 // 3 + 2 * rows * C * K * V + 2 * C * C * V + 2 * C * K * V
    backward = 2 * C * K * V * (2 + 2 * rows) + 2 * C * C * V * 2 + 4 * C * C * K
    if read:
        forward += 2 * C * C * V
        backward += 4 * C * C * V + 4 * C * C * K
    return H * chunks * forward, H * chunks * backward


def optimizer_cost(shapes: list[tuple[int, int]]) -> int:
    """FLOPs of Muon's five Newton-Schulz steps over matrices of these shapes, once per optimiser step."""
    total = 0
    for rows, columns in shapes:
        short, long = sorted((rows, columns))
        total += 5 * (4 * short * short * long + 2 * short**3)
    return total
