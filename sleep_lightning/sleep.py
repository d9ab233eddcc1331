"""Algorithm 1 of the paper: read a window, sleep on it, forget it. The one place that knows what sleep is.

A sequence is cut into windows of L tokens. Of each window only the memory survives (under sliding eviction also
the keys and values of the last L - 1 tokens, those of the last pass). A window without any target token sleeps:
the block stack, or its core, runs N times over it in total, each pass fed the hidden states of the pass before and
the memory carried on. A window with targets is read in one pass, and still writes memory.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.ops import mapped

IGNORE = -100
"""Label of a token without loss."""

Eviction = Literal["hard", "sliding"]


@dataclass
class SleepConfig:
    window_size: int = 24
    """L: tokens of a window, and of the attention cache."""
    n_passes: int = 1
    """N: TOTAL passes over a window before it is evicted; 1 is the plain hybrid."""
    eviction: Eviction = "hard"
    """What happens to attention's cache at a window's end: hard forgets it, sliding keeps its last L - 1 tokens."""
    loop: str = "all"
    """Blocks that are looped: all, or prelude/core/coda as counts (7/14/7: only the middle 14 run N times)."""
    wake_passes: int = 1
    """Passes over a window with answers, each from the memory the window began with (a control: loops when awake)."""
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
        if self.loop != "all":
            counts = self.loop.split("/")
            if len(counts) != 3 or not all(n.isdecimal() for n in counts) or not int(counts[1]):
                raise ValueError(
                    f"sleep.loop={self.loop!r} must be all, or the numbers of blocks before, in and after the loop as "
                    f"prelude/core/coda, for example 1/2/1"
                )
        if self.wake_passes < 1:
            raise ValueError(f"sleep.wake_passes={self.wake_passes} must be at least 1: one ordinary pass")
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

    def parts(self, n_blocks: int) -> tuple[range, range, range]:
        """Prelude, core and coda of a stack: the core is looped, the others run once a window."""
        if self.loop == "all":
            return range(0), range(n_blocks), range(n_blocks, n_blocks)
        prelude, core, coda = map(int, self.loop.split("/"))
        if prelude + core + coda != n_blocks:
            raise ValueError(
                f"sleep.loop={self.loop!r} counts {prelude + core + coda} blocks, the model has {n_blocks}; "
                f"the three numbers must add up to it"
            )
        return range(prelude), range(prelude, prelude + core), range(prelude + core, n_blocks)

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values cross a boundary."""
        return self.window_size - 1 if self.eviction == "sliding" else 0


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

    Windows after the last label of all rows do not sleep: nothing is asked of what they hold.

    Raises:
        ValueError: if some rows have labels in a window and others, not yet done, don't: one batch, one plan.
    """
    T = labels_BT.shape[1]
    has_label_BT = labels_BT != IGNORE
    last = int(has_label_BT.any(0).nonzero().max()) if has_label_BT.any() else T
    windows = []
    for start in range(0, T, window_size):
        stop = min(start + window_size, T)
        rows = has_label_BT[:, start:stop].any(1)
        done = has_label_BT[:, :start].any(1) & ~has_label_BT[:, start:].any(1)
        if bool(rows.any()) and not bool((rows | done).all()):
            raise ValueError(
                f"tokens {start}:{start + window_size} have labels in {int(rows.sum())} of {len(rows)} rows; "
                f"every row of a batch must have its labels in the same windows"
            )
        windows.append(Window(start, stop, sleeps=not bool(rows.any()) and start <= last))
    return windows


def zero_memory(model: HybridLM, batch_size: int, config: SleepConfig) -> Memory:
    """Memory before the first window, with room for all that the configuration carries over boundaries."""
    return model.zero_memory(batch_size, carry_conv_state=config.carry_conv_state, cached_tokens=config.cached_tokens)


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
    pad = model.padding(tokens_BL)
    prelude, core, coda = config.parts(len(model.config.pattern))
    h = model.embed(tokens_BL)
    if prelude:
        h, memory = _call(model.blocks, checkpoint_passes, h, memory, pad, prelude)
    entry, at_start = h, memory
    tail = model.config.last_writer(coda, cached=bool(memory.kv)) >= 0
    for n in range(1, config.n_passes + 1):
        carries_gradient = config.grad_passes is None or n > config.n_passes - config.grad_passes
        memory = at_start if config.reset_memory_between_passes else _with_cache_of(at_start, memory)
        h_in, memory_in, h_out = h, memory, None
        with nullcontext() if carries_gradient else torch.no_grad():
            if n == config.n_passes and not tail:
                memory = _call(model.write, checkpoint_passes and carries_gradient, h, memory, pad, core)
            else:
                h_out, memory = _call(model.blocks, checkpoint_passes and carries_gradient, h, memory, pad, core)
                h = h_out if n == config.n_passes else _next_input(model, config, entry, h_out)
        if observe is not None:
            observe(PassRecord(n, h_in, h_out, memory_in, memory))
    if tail:
        memory = _call(model.write, checkpoint_passes, h, memory, pad, coda)
    return _seen(memory, tokens_BL, pad)


def _next_input(model: HybridLM, config: SleepConfig, entry: Tensor, h: Tensor) -> Tensor:
    if config.pass_input == "embed":
        return entry
    if config.loop_norm:
        h = model.norm(h).to(h.dtype)
    return h + entry if config.pass_input == "inject" else h


def _with_cache_of(at_start: Memory, memory: Memory) -> Memory:
    """Every pass attends to what earlier windows left, not to the keys and values of the pass before."""
    return replace(memory, kv=at_start.kv) if memory.kv else memory


def _seen(memory: Memory, tokens_BL: Tensor, pad: Tensor | None) -> Memory:
    """The window's tokens are in the cache now (if there is one)."""
    if not memory.present:
        return memory
    (present,) = memory.present
    own = torch.ones_like(tokens_BL, dtype=present.dtype) if pad is None else (~pad).to(present.dtype)
    return replace(memory, present=(torch.cat((present, own), 1)[:, tokens_BL.shape[1] :],))


def wake(
    model: HybridLM, tokens_BL: Tensor, memory: Memory, config: SleepConfig | None = None
) -> tuple[Tensor, Memory]:
    """One ordinary pass over a window: hidden states ``[B, <= L, d_model]`` and the memory it wrote.

    With ``config.wake_passes`` above 1 the core is looped here, each pass from the memory of the window's start:
    what pass 1 wrote already holds the window's end, which earlier tokens must not see.
    """
    pad, h = model.padding(tokens_BL), model.embed(tokens_BL)
    if config is None or config.wake_passes == 1:
        h, memory = model.blocks(h, memory, pad)
        return h, _seen(memory, tokens_BL, pad)
    prelude, core, coda = config.parts(len(model.config.pattern))
    if prelude:
        h, memory = model.blocks(h, memory, pad, prelude)
    entry, at_start = h, memory
    for n in range(config.wake_passes):
        h, memory = model.blocks(_next_input(model, config, entry, h) if n else h, at_start, pad, core)
    if coda:
        h, memory = model.blocks(h, memory, pad, coda)
    return h, _seen(memory, tokens_BL, pad)


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
            h, memory = _call(wake, policy != "none", model, tokens_BL, memory, config)
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
