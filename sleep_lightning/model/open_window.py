"""A window of the hybrid that is read as its tokens come: opened from a memory, extended, closed into one."""

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.hybrid import HybridLM
from sleep_lightning.model.memory import Memory
from sleep_lightning.model.window_cache import WindowCache
from sleep_lightning.ops import rotate


def open_window(model: HybridLM, memory: Memory, size: int, rows: int | None = None) -> tuple[Memory, WindowCache]:
    """A memory and a cache for ``HybridLM.extend``.

    Args:
        model: the hybrid.
        memory: what earlier windows left.
        size: most tokens of the window.
        rows: sequences; None: those of the memory, or one where it has no tensors (attention alone, hard eviction).

    Returns:
        The memory with inputs of the short convolutions, which the next token needs (zeros where none are carried
        over windows), and the cache, which instead of it holds the keys and values that are.
    """
    attentions = [block.mixer for block in model.stack if isinstance(block.mixer, Attention)]
    rows = rows or next((len(x) for x in memory.named_tensors().values()), 1)
    before = memory.kv[0].shape[1] if memory.kv else 0
    like = model.norm.weight
    shapes = [(rows, a.kv_heads, before + size, a.head_dim) for a in attentions]
    keys, values, plain = ([like.new_zeros(shape) for shape in shapes] for _ in range(3))
    present = like.new_zeros(rows, before + size).bool()
    for i, (attention, kv) in enumerate(zip(attentions, memory.kv, strict=False)):
        k, v = kv.unbind(2)
        cos, sin = attention.rope.tables(before)
        for buffer, x in ((keys[i], rotate(k, cos, sin)), (values[i], v), (plain[i], k)):
            buffer[:, :, :before] = x.transpose(1, 2)
        present[:, :before] = memory.present[0] > 0
    plain = plain if before else []
    cache = WindowCache(tuple(keys), tuple(values), tuple(plain), present, (before,) * rows, before, whole=not before)
    conv = memory.conv or tuple(m.zero_conv(rows) for m in model.memory_layers if m.conv_size)
    return replace(memory, conv=conv, kv=(), present=()), cache


def close_window(memory: Memory, cache: WindowCache, *, carry_conv_state: bool) -> Memory:
    """The memory behind a window that was read in one pass, as ``HybridLM.blocks`` over all its tokens returns it.

    Args:
        memory: from the last ``HybridLM.extend``.
        cache: the window's.
        carry_conv_state: whether the inputs of the short convolutions cross windows.
    """
    kv, present = cache.carried()
    return replace(memory, conv=memory.conv if carry_conv_state else (), kv=kv, present=present)


def with_layers_of(model: HybridLM, part: range, memory: Memory, other: Memory) -> Memory:
    """``memory`` in which what the blocks of ``part`` hold is that of ``other``."""
    fast, attention = model.layers_of(part)

    def merged(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], layers: Iterable[int]) -> tuple[Tensor, ...]:
        return tuple(b if i in layers else a for i, (a, b) in enumerate(zip(ours, theirs, strict=True)))

    return replace(
        memory,
        states=merged(memory.states, other.states, fast),
        conv=merged(memory.conv, other.conv, fast),
        kv=merged(memory.kv, other.kv, attention),
    )
