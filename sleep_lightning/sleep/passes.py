"""The passes over one window: N when it sleeps, one when it answers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sleep_lightning.model import Memory, WindowModel
from sleep_lightning.sleep.adaptive import Rows, change
from sleep_lightning.sleep.compaction import behind_summaries, leave_summary
from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.schedule import Pass, plan_passes


class PassRecord(NamedTuple):
    """What one sleeping pass did: for diagnostics. ``h_out`` is None for a last pass, which only writes."""

    n: int
    h_in: Tensor
    h_out: Tensor | None
    memory_in: Memory
    memory_out: Memory


def zero_memory(model: WindowModel, batch_size: int, config: SleepConfig) -> Memory:
    """Memory before the first window, with room for all that the configuration carries over boundaries."""
    return model.zero_memory(batch_size, carry_conv_state=config.carry_conv_state, cached_tokens=config.cached_tokens)


def sleep(
    model: WindowModel,
    tokens_BL: Tensor,
    memory: Memory,
    config: SleepConfig,
    *,
    passes: Sequence[Pass] | None = None,
    observe: Callable[[PassRecord], None] | None = None,
) -> Memory:
    """N passes over one window that is about to be evicted; returns the memory, drops everything else.

    Args:
        model: any window model.
        tokens_BL: the window's token ids ``[B, <= L]``.
        memory: memory on entry.
        config: N and its options.
        passes: from the schedule; None: planned here, without recomputation.
        observe: called after every pass.
    """
    passes = plan_passes(model, config, sleeps=True) if passes is None else passes
    memory = memory.detach() if config.truncated else memory
    own_pad = model.padding(tokens_BL)
    h, pad = behind_summaries(model, model.embed(tokens_BL), own_pad, memory, leaves_one=True)
    h, memory = _run_passes(
        model,
        passes,
        h,
        memory,
        pad,
        config,
        reset=config.reset_memory_between_passes,
        tolerance=config.tolerance,
        observe=observe,
    )
    if model.summary_tokens:
        memory = leave_summary(model, h, memory, own_pad)
    return _seen(memory, tokens_BL, pad)


def wake(
    model: WindowModel,
    tokens_BL: Tensor,
    memory: Memory,
    config: SleepConfig | None = None,
    retrieved_BR: Tensor | None = None,
    *,
    passes: Sequence[Pass] | None = None,
) -> tuple[Tensor, Memory]:
    """One ordinary pass over a window: hidden states ``[B, <= L, d_model]`` and the memory it wrote.

    With ``config.wake_passes`` above 1 the core is looped here, each pass from the memory of the window's start:
    what pass 1 wrote already holds the window's end, which earlier tokens must not see.

    Args:
        model: any window model.
        tokens_BL: the window's token ids ``[B, <= L]``.
        memory: memory on entry.
        config: options; None for the plain pass.
        retrieved_BR: tokens put back in front of the window, which reads them again.
        passes: from the schedule; None: planned here, without recomputation.
    """
    config = config or SleepConfig()
    passes = plan_passes(model, config, sleeps=False) if passes is None else passes
    own = tokens_BL.shape[1]
    read = tokens_BL if retrieved_BR is None else torch.cat((retrieved_BR, tokens_BL), 1)
    h, pad = behind_summaries(model, model.embed(read), model.padding(read), memory, leaves_one=False)
    h, memory = _run_passes(model, passes, h, memory, pad, config, reset=True)
    return h[:, -own:], _seen(memory, tokens_BL, pad)


def _run_passes(
    model: WindowModel,
    passes: Sequence[Pass],
    h: Tensor,
    memory: Memory,
    pad: Tensor | None,
    config: SleepConfig,
    *,
    reset: bool,
    tolerance: float | None = None,
    observe: Callable[[PassRecord], None] | None = None,
) -> tuple[Tensor, Memory]:
    """Passes of the schedule in order; ``reset``: each of the core starts from the memory that the first did."""
    entry, at_start, whole = h, memory, pad
    rows = None if tolerance is None else Rows(torch.arange(len(h), device=h.device))
    for p, following in zip_longest(passes, passes[1:]):
        core, before = p.part == "core", memory
        again = core and following is not None and following.part == "core"
        if core and p.n == 1:
            entry, at_start = h, memory
        elif core:
            memory = at_start if reset else _with_cache_of(at_start, memory)
        if rows is None or len(h) or not core:
            h_in, memory_in = h, memory
            h_out, memory = _run_pass(model, p, h, memory, pad)
            h = h if h_out is None else h_out
            if core and observe is not None:
                observe(PassRecord(p.n, h_in, h_out, memory_in, memory))
        if again and rows is not None and tolerance is not None:
            stay = rows.leave(change(before, memory) <= tolerance, h, memory)
            h, entry, memory, at_start = h[stay], entry[stay], _rows(memory, stay), _rows(at_start, stay)
            pad = None if pad is None else pad[stay]
        if again:
            h = _next_input(model, config, entry, h)
        elif core and rows is not None:
            (h, memory), pad = rows.together(h, memory), whole
    return h, memory


def _run_pass(
    model: WindowModel, p: Pass, h: Tensor, memory: Memory, pad: Tensor | None
) -> tuple[Tensor | None, Memory]:
    """Hidden states (None of a pass that only writes) and memory."""
    with nullcontext() if p.gradient else torch.no_grad():
        if p.writes_only:
            return None, call(partial(model.write, **_options(p)), p.recompute == "pass", h, memory, pad, p.blocks)
        h_out, memory = call(partial(model.blocks, **_options(p)), p.recompute == "pass", h, memory, pad, p.blocks)
        return h_out, memory


def _rows(memory: Memory, rows: Tensor) -> Memory:
    return memory.map(lambda x: x[rows])


def _options(p: Pass) -> dict[str, Any]:
    """Arguments of the blocks; ``check_checkpointing`` and ``check_looped`` have refused models without them."""
    recompute = {"recompute_mlp": True} if p.recompute == "mlp" else {}
    return recompute if p.mlps else recompute | {"mlps": False}


def _next_input(model: WindowModel, config: SleepConfig, entry: Tensor, h: Tensor) -> Tensor:
    if config.pass_input == "embed":
        return entry
    if config.loop_norm:
        h = model.loop_norm(h)
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


def call(f: Callable[..., Any], recompute: bool, *args: Any) -> Any:
    """``f(*args)``, its activations recomputed in the backward if asked and if there will be one."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(f, *args, use_reentrant=False, preserve_rng_state=False)
    return f(*args)
