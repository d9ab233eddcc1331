"""The loop over windows that IS the method."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor

from sleep_lightning.model import Memory, WindowModel
from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.passes import PassRecord, call, sleep, wake
from sleep_lightning.sleep.retrieval import retrieve
from sleep_lightning.sleep.schedule import Checkpointing, PlannedWindow, make_schedule
from sleep_lightning.sleep.windows import Window

AtBoundary = Callable[[int, Memory], Memory]
Observer = Callable[[Window, PassRecord], None]


def run_window_loop(
    model: WindowModel,
    tokens_BT: Tensor,
    windows: Sequence[Window],
    memory: Memory,
    config: SleepConfig,
    *,
    policy: Checkpointing = "none",
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
    answers_BT: Tensor | None = None,
) -> Iterator[tuple[Window, Tensor | None, Memory]]:
    """Run a batch window by window. This loop IS the method; faster executors are tested against it.

    Args:
        model: any window model.
        tokens_BT: token ids ``[B, T]``.
        windows: from ``plan_windows``.
        memory: memory before the first window.
        config: N and its options.
        policy: activation checkpointing.
        at_boundary: called with a window's index and the memory after it; the next window starts from what it
            returns (a detached memory truncates BPTT, a zeroed one is an ablation).
        observe: called after every sleeping pass.
        answers_BT: which tokens are answers (``is_answer``), which retrieval must not search for.

    Yields:
        The window, its hidden states (None where it slept: they are dropped) and the memory after it.
    """
    planned = [w for segment in make_schedule(model, windows, config, checkpointing=policy) for w in segment]
    return run_schedule(
        model, tokens_BT, planned, memory, config, at_boundary=at_boundary, observe=observe, answers_BT=answers_BT
    )


def run_schedule(
    model: WindowModel,
    tokens_BT: Tensor,
    planned: Sequence[PlannedWindow],
    memory: Memory,
    config: SleepConfig,
    *,
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
    answers_BT: Tensor | None = None,
) -> Iterator[tuple[Window, Tensor | None, Memory]]:
    """``run_window_loop`` over windows of a schedule that is made already."""
    for i, one in enumerate(planned):
        window = one.window
        tokens_BL = tokens_BT[:, window.start : window.stop]
        h: Tensor | None = None
        if window.sleeps:
            memory = _sleep_window(model, tokens_BL, one, memory, config, observe)
        else:
            retrieved = retrieve(model, tokens_BT, answers_BT, window, config)
            run = partial(wake, passes=one.passes)
            h, memory = call(run, one.recompute, model, tokens_BL, memory, config, retrieved)
        yield window, h, memory
        if at_boundary is not None:
            memory = at_boundary(i, memory)


def _sleep_window(
    model: WindowModel,
    tokens_BL: Tensor,
    planned: PlannedWindow,
    memory: Memory,
    config: SleepConfig,
    observe: Observer | None,
) -> Memory:
    if observe is None:
        run = partial(sleep, passes=planned.passes)
        return call(run, planned.recompute, model, tokens_BL, memory, config)
    return sleep(model, tokens_BL, memory, config, passes=planned.passes, observe=lambda r: observe(planned.window, r))
