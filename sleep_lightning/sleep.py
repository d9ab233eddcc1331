"""Algorithm 1 of the paper: read a window, sleep on it, forget it. The one place that knows what sleep is.

A sequence is cut into windows of L tokens. Of each window only the memory survives. A window without any
target token sleeps: the block stack runs N times over it in total, each pass fed the hidden states of the
pass before and the memory carried on. A window with targets is read in one pass, and still writes memory.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.ops import mapped

IGNORE = -100
"""Label of a token without loss."""


@dataclass
class SleepConfig:
    window_size: int = 24
    """L: tokens of a window, and of the attention cache."""
    n_passes: int = 1
    """N: TOTAL passes over a window before it is evicted; 1 is the plain hybrid."""
    eviction: Literal["hard"] = "hard"
    """What happens to the attention cache at a window's end: hard forgets all of it."""
    pass_input: Literal["hidden", "embed", "inject"] = "hidden"
    """Input of pass n + 1: hidden states of pass n (the paper), the embeddings again, or the sum of both."""
    loop_norm: bool = False
    """Apply the model's final norm to the hidden states between passes (as Ouro does)."""
    reset_memory_between_passes: bool = False
    """Start every pass from the memory the window began with (a control: only h crosses passes)."""
    grad_passes: int | None = None
    """Only the last m passes of a window carry gradient (so none crosses windows if m < N); null: all."""
    carry_conv_state: bool = False
    """Carry the short convolution's last inputs over passes and windows instead of restarting it."""

    def __post_init__(self) -> None:
        if self.window_size < 2:
            raise ValueError(f"sleep.window_size={self.window_size} must be at least 2 tokens")
        if self.n_passes < 1:
            raise ValueError(
                f"sleep.n_passes={self.n_passes} must be at least 1: it counts ALL passes, and 1 is the plain hybrid"
            )
        if self.grad_passes is not None and not 1 <= self.grad_passes <= self.n_passes:
            raise ValueError(
                f"sleep.grad_passes={self.grad_passes} must be from 1 to sleep.n_passes={self.n_passes}, "
                f"or null for all"
            )


class Window(NamedTuple):
    """Tokens ``start:stop`` of a sequence, and whether they are slept on."""

    start: int
    stop: int
    sleeps: bool


class PassRecord(NamedTuple):
    """What one sleeping pass did: for diagnostics. ``h_out`` is None for a last pass, which only writes."""

    n: int
    h_in: Tensor
    h_out: Tensor | None
    memory_in: Memory
    memory_out: Memory


AtBoundary = Callable[[int, Memory], Memory]
Observer = Callable[[Window, PassRecord], None]
Checkpoint = Literal["none", "window", "pass"]


def plan_windows(labels_BT: Tensor, window_size: int) -> list[Window]:
    """Cut a batch into windows; a window sleeps if no row has a label there (Algorithm 1).

    Raises:
        ValueError: if some rows have labels in a window and others don't: one batch, one plan.
    """
    T = labels_BT.shape[1]
    has_label_BT = labels_BT != IGNORE
    windows = []
    for start in range(0, T, window_size):
        rows = has_label_BT[:, start : start + window_size].any(1)
        if bool(rows.any()) != bool(rows.all()):
            raise ValueError(
                f"tokens {start}:{start + window_size} have labels in {int(rows.sum())} of {len(rows)} rows; "
                f"every row of a batch must have its labels in the same windows"
            )
        windows.append(Window(start, min(start + window_size, T), sleeps=not bool(rows.any())))
    return windows


def sleep(
    model: HybridLM,
    tokens_BL: Tensor,
    memory: Memory,
    config: SleepConfig,
    *,
    checkpoint_passes: bool = False,
    observe: Callable[[PassRecord], None] | None = None,
) -> Memory:
    """N passes over one window that is about to be evicted; returns the memory, drops everything else.

    Args:
        model: the hybrid.
        tokens_BL: the window's token ids ``[B, <= L]``.
        memory: memory on entry.
        config: N and its options.
        checkpoint_passes: recompute each pass in the backward instead of keeping its activations.
        observe: called after every pass.
    """
    embedded = h = model.embed(tokens_BL)
    at_start = memory
    for n in range(1, config.n_passes + 1):
        carries_gradient = config.grad_passes is None or n > config.n_passes - config.grad_passes
        if config.reset_memory_between_passes:
            memory = at_start
        h_in, memory_in, h_out = h, memory, None
        with nullcontext() if carries_gradient else torch.no_grad():
            if n == config.n_passes:
                memory = _call(model.write, checkpoint_passes and carries_gradient, h, memory)
            else:
                h_out, memory = _call(model.blocks, checkpoint_passes and carries_gradient, h, memory)
                h = _next_input(model, config, embedded, h_out)
        if observe is not None:
            observe(PassRecord(n, h_in, h_out, memory_in, memory))
    return memory


def _next_input(model: HybridLM, config: SleepConfig, embedded: Tensor, h: Tensor) -> Tensor:
    if config.pass_input == "embed":
        return embedded
    if config.loop_norm:
        h = model.norm(h).to(h.dtype)
    return h + embedded if config.pass_input == "inject" else h


def wake(model: HybridLM, tokens_BL: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """One ordinary pass over a window: hidden states ``[B, <= L, d_model]`` and the memory it wrote."""
    return model.blocks(model.embed(tokens_BL), memory)


def walk(
    model: HybridLM,
    tokens_BT: Tensor,
    windows: list[Window],
    memory: Memory,
    config: SleepConfig,
    *,
    policy: Checkpoint = "none",
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
) -> Iterator[tuple[Window, Tensor | None, Memory]]:
    """Walk a batch window by window. This loop IS the method; faster executors are tested against it.

    Args:
        model: the hybrid.
        tokens_BT: token ids ``[B, T]``.
        windows: the plan, from ``plan_windows``.
        memory: memory before the first window.
        config: N and its options.
        policy: activation checkpointing: ``none``, per ``window`` (all its passes) or per ``pass``.
        at_boundary: called with a window's index and the memory after it; the next window starts from what it
            returns (a detached memory truncates BPTT, a zeroed one is an ablation).
        observe: called after every sleeping pass.

    Yields:
        The window, its hidden states (None where it slept: they are dropped) and the memory after it.
    """
    for i, window in enumerate(windows):
        tokens_BL = tokens_BT[:, window.start : window.stop]
        h: Tensor | None = None
        if window.sleeps:
            memory = _sleep_window(model, tokens_BL, window, memory, config, policy, observe)
        else:
            h, memory = _call(wake, policy != "none", model, tokens_BL, memory)
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
        return _call(sleep, True, model, tokens_BL, memory, config)
    record = None if observe is None else (lambda r: observe(window, r))
    return sleep(model, tokens_BL, memory, config, checkpoint_passes=policy == "pass", observe=record)


def _call(f: Callable[..., Any], recompute: bool, *args: Any) -> Any:
    """``f(*args)``, its activations recomputed in the backward if asked and if there will be one."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(f, *map(_kept, args), use_reentrant=False, preserve_rng_state=False)
    return f(*args)


def _kept(argument: Any) -> Any:
    """An argument of a checkpointed call, which stays until the backward, where it does not fragment the heap."""
    if isinstance(argument, Memory):
        return argument.map(mapped)
    return mapped(argument) if isinstance(argument, Tensor) else argument
