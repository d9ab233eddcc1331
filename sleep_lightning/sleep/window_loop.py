"""The loop over windows that IS the method."""

from collections.abc import Callable, Iterator
from typing import Literal

from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.passes import PassRecord, call, sleep, wake
from sleep_lightning.sleep.retrieval import retrieve
from sleep_lightning.sleep.windows import Window

AtBoundary = Callable[[int, Memory], Memory]
Observer = Callable[[Window, PassRecord], None]
Checkpoint = Literal["none", "mlp", "pass", "window"]
"""What the backward makes again instead of keeping it: nothing, the projections of the MLPs, all of each pass but what
enters it, or all passes of a window together."""
WHOLE_PASSES: tuple[Checkpoint, ...] = ("pass", "window")
"""Under these, whole passes are made again: they keep little, and are run window by window."""


def run_window_loop(
    model: HybridLM,
    tokens_BT: Tensor,
    windows: list[Window],
    memory: Memory,
    config: SleepConfig,
    *,
    policy: Checkpoint = "none",
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
    answers_BT: Tensor | None = None,
) -> Iterator[tuple[Window, Tensor | None, Memory]]:
    """Walk a batch window by window. This loop IS the method; faster executors are tested against it.

    Args:
        model: the hybrid.
        tokens_BT: token ids ``[B, T]``.
        windows: the plan, from ``plan_windows``.
        memory: memory before the first window.
        config: N and its options.
        policy: activation checkpointing.
        at_boundary: called with a window's index and the memory after it; the next window starts from what it
            returns (a detached memory truncates BPTT, a zeroed one is an ablation).
        observe: called after every sleeping pass.
        answers_BT: which tokens are answers (``is_answer``); retrieval must not look for what they say.

    Yields:
        The window, its hidden states (None where it slept: they are dropped) and the memory after it.
    """
    for i, window in enumerate(windows):
        tokens_BL = tokens_BT[:, window.start : window.stop]
        h: Tensor | None = None
        with model.mlps_recomputed(policy == "mlp"):
            if window.sleeps:
                memory = _sleep_window(model, tokens_BL, window, memory, config, policy, observe)
            else:
                retrieved = retrieve(model, tokens_BT, answers_BT, window, config)
                h, memory = call(wake, policy in WHOLE_PASSES, model, tokens_BL, memory, config, retrieved)
        yield window, h, memory
        if at_boundary is not None:
            memory = at_boundary(i, memory)


def _sleep_window(
    model: HybridLM,
    tokens_BL: Tensor,
    window: Window,
    memory: Memory,
    config: SleepConfig,
    policy: Checkpoint,
    observe: Observer | None,
) -> Memory:
    if policy == "window" and observe is None:
        return call(sleep, True, model, tokens_BL, memory, config)
    record = None if observe is None else (lambda r: observe(window, r))
    return sleep(model, tokens_BL, memory, config, checkpoint_passes=policy == "pass", observe=record)
