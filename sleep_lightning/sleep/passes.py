"""The passes over one window: N when it sleeps, one when it answers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.ops import mapped
from sleep_lightning.sleep.compaction import behind_summaries, leave_summary
from sleep_lightning.sleep.config import SleepConfig


class PassRecord(NamedTuple):
    """What one sleeping pass did: for diagnostics. ``h_out`` is None for a last pass, which only writes."""

    n: int
    h_in: Tensor
    h_out: Tensor | None
    memory_in: Memory
    memory_out: Memory


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
    prelude, core, coda = config.parts(len(model.config.pattern))
    memory = memory.detach() if config.truncated else memory
    h, pad = behind_summaries(model, model.embed(tokens_BL), model.padding(tokens_BL), memory, leaves_one=True)
    tokens = None if model.config.summary_tokens else tokens_BL
    if prelude:
        with torch.no_grad() if config.truncated else nullcontext():
            h, memory = call(model.blocks, checkpoint_passes, h, memory, pad, prelude, tokens)
        tokens = None
    entry, at_start = h, memory
    tail = model.config.last_writer(coda, cached=bool(memory.kv)) >= 0 or model.config.summary_tokens > 0
    for n in range(1, config.n_passes + 1):
        carries_gradient = config.grad_passes is None or n > config.n_passes - config.grad_passes
        memory = at_start if config.reset_memory_between_passes else _with_cache_of(at_start, memory)
        h_in, memory_in, h_out = h, memory, None
        known = tokens if h is entry else None
        with nullcontext() if carries_gradient else torch.no_grad():
            if n == config.n_passes and not tail:
                memory = call(model.write, checkpoint_passes and carries_gradient, h, memory, pad, core, known)
            else:
                h_out, memory = call(model.blocks, checkpoint_passes and carries_gradient, h, memory, pad, core, known)
                h = h_out if n == config.n_passes else _next_input(model, config, entry, h_out)
        if observe is not None:
            observe(PassRecord(n, h_in, h_out, memory_in, memory))
    if model.config.summary_tokens:
        if coda:
            h, memory = call(model.blocks, checkpoint_passes, h, memory, pad, coda)
        memory = leave_summary(model, h, memory)
    elif tail:
        memory = call(model.write, checkpoint_passes, h, memory, pad, coda)
    return _seen(memory, tokens_BL, pad)


def wake(
    model: HybridLM,
    tokens_BL: Tensor,
    memory: Memory,
    config: SleepConfig | None = None,
    retrieved_BR: Tensor | None = None,
) -> tuple[Tensor, Memory]:
    """One ordinary pass over a window: hidden states ``[B, <= L, d_model]`` and the memory it wrote.

    With ``config.wake_passes`` above 1 the core is looped here, each pass from the memory of the window's start:
    what pass 1 wrote already holds the window's end, which earlier tokens must not see.

    Args:
        model: the hybrid.
        tokens_BL: the window's token ids ``[B, <= L]``.
        memory: memory on entry.
        config: options; None for the plain pass.
        retrieved_BR: tokens put back in front of the window, which reads them again.
    """
    own = tokens_BL.shape[1]
    read = tokens_BL if retrieved_BR is None else torch.cat((retrieved_BR, tokens_BL), 1)
    h, pad = behind_summaries(model, model.embed(read), model.padding(read), memory, leaves_one=False)
    if config is None or config.wake_passes == 1:
        h, memory = model.blocks(h, memory, pad, None, None if model.config.summary_tokens else read)
        return h[:, -own:], _seen(memory, tokens_BL, pad)
    prelude, core, coda = config.parts(len(model.config.pattern))
    if prelude:
        h, memory = model.blocks(h, memory, pad, prelude)
    entry, at_start = h, memory
    for n in range(config.wake_passes):
        h, memory = model.blocks(_next_input(model, config, entry, h) if n else h, at_start, pad, core)
    if coda:
        h, memory = model.blocks(h, memory, pad, coda)
    return h[:, -own:], _seen(memory, tokens_BL, pad)


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


def call(f: Callable[..., Any], recompute: bool, *args: Any) -> Any:
    """``f(*args)``, its activations recomputed in the backward if asked and if there will be one."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(f, *map(_kept, args), use_reentrant=False, preserve_rng_state=False)
    return f(*args)


def _kept(argument: Any) -> Any:
    """An argument of a checkpointed call, which stays until the backward, where it does not fragment the heap."""
    if isinstance(argument, Memory):
        return argument.map(mapped)
    return mapped(argument) if isinstance(argument, Tensor) else argument
