"""Open windows of several sessions in one forward, however far each is filled.

Rows do not see each other: the values of one depend on those of no other, whatever these are (NaN, infinities), and on
the number of rows only by rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.model.window_cache import WindowCache
from sleep_lightning.session.engine import Observe
from sleep_lightning.session.window import OpenWindow, run_tokens
from sleep_lightning.sleep import PassRecord, SleepConfig


class Rows:
    """Reads for windows, and keeps what it has stacked for the same windows as long as they go on from it."""

    def __init__(self, model: HybridLM, config: SleepConfig) -> None:
        self._model, self._config = model, config
        self._kept: tuple[list[OpenWindow], Memory, WindowCache] | None = None

    def read(self, windows: Sequence[OpenWindow], tokens_BT: Tensor) -> list[tuple[OpenWindow, Tensor]]:
        """``OpenWindow.read`` of every window, T tokens each; what is returned may be views until ``own`` is called."""
        memory, cache = self._stack(windows)
        run = run_tokens(self._model, self._config, memory, cache, tokens_BT)
        made: list[tuple[OpenWindow, Tensor]] = []
        for i, window in enumerate(windows):
            h_in, h_out, h = (x[i : i + 1] for x in (run.h_in, run.h_out, run.h))
            row = window.filled(tokens_BT[i : i + 1], h_in, h_out)
            cache_row = replace(run.cache.row(i), apart=False)
            made.append((replace(row, memory=row_of(run.memory, i), cache=cache_row, last_BE=h[:, -1]), h))
        self._kept = [window for window, _ in made], run.memory, run.cache
        return made

    def forget(self) -> None:
        """Let go of what is stacked."""
        self._kept = None

    def _stack(self, windows: Sequence[OpenWindow]) -> tuple[Memory, WindowCache]:
        if (kept := self._kept) is not None and len(windows) == len(kept[0]):
            pairs = zip(windows, kept[0], strict=True)
            if all(a.memory is b.memory and a.cache is b.cache for a, b in pairs):
                return kept[1:]
        cache = WindowCache.stack([w.cache for w in windows])
        return stack_memory([w.memory for w in windows]), replace(cache, apart=True)


def close_rows(
    model: HybridLM, config: SleepConfig, windows: Sequence[OpenWindow], observe: Sequence[Observe | None]
) -> list[Memory]:
    """``OpenWindow.close`` of windows with equally many tokens; without ``tolerance``, as rows would part company."""
    first = windows[0]
    together = OpenWindow(
        stack_memory([w.start for w in windows]),
        stack_memory([w.memory for w in windows]),
        WindowCache.stack([w.cache for w in windows]),
        torch.cat([w.tokens_BL for w in windows]),
        None if first.h_in_BLE is None else _cat(windows, lambda w: w.h_in_BLE),
        _cat(windows, lambda w: w.h_out_BLE),
        first.fill,
        _cat(windows, lambda w: w.last_BE),
    )

    def tell(record: PassRecord) -> None:
        for i, listener in enumerate(observe):
            if listener is not None:
                listener(_row_of_record(record, i))

    memory = together.close(model, config, tell)
    return [row_of(memory, i).clone() for i in range(len(windows))]


def own(window: OpenWindow) -> OpenWindow:
    """The same with tensors of its own in the place of rows of a batch, which they would keep alive."""
    tensors = (window.cache.present, window.last_BE, *window.memory.named_tensors().values())
    if all(x._base is None for x in tensors):
        return window
    cache, last_BE = window.cache.clone(), window.last_BE.clone()
    return replace(window, memory=window.memory.clone(), cache=cache, last_BE=last_BE)


def stack_memory(memories: Sequence[Memory]) -> Memory:
    """One batch of the rows of several memories; a copy."""
    parts = ([getattr(m, part.name) for m in memories] for part in fields(Memory))
    return Memory(*(tuple(map(torch.cat, zip(*rows, strict=True))) for rows in parts))


def row_of(memory: Memory, i: int) -> Memory:
    """One row: a view."""
    return memory.map(lambda x: x[i : i + 1])


def _row_of_record(record: PassRecord, i: int) -> PassRecord:
    h_out = None if record.h_out is None else record.h_out[i : i + 1]
    return PassRecord(
        record.n, record.h_in[i : i + 1], h_out, row_of(record.memory_in, i), row_of(record.memory_out, i)
    )


def _cat(windows: Sequence[OpenWindow], of: Callable[[OpenWindow], Tensor | None]) -> Tensor:
    tensors = [of(w) for w in windows]
    return torch.cat([x for x in tensors if x is not None])
