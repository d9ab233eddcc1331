"""From one state of a session to the next: tokens read, windows closed. Nothing else changes a state."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session.cost import Meter
from sleep_lightning.session.engine import Alone, Engine
from sleep_lightning.session.provenance import Read, Slept, WindowLine, added, chain_hash, counted, labels
from sleep_lightning.session.state import LastWindow, SessionState
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.session.write_policy import WritePolicy
from sleep_lightning.sleep import PassRecord, SleepConfig
from sleep_lightning.sleep.adaptive import change


class Reader:
    """Reads and sleeps for one session.

    Args:
        model: of the session.
        config: its sleep.
        meter: of its bill.
        writes: what may be consolidated; None: everything, with N passes.
        clock: seconds since 1970.
        keep_texts: record what is read, so that it can be read again.

    Attributes:
        engine: runs the model.
    """

    def __init__(
        self,
        model: HybridLM,
        config: SleepConfig,
        meter: Meter,
        writes: WritePolicy | None,
        clock: Callable[[], float],
        keep_texts: bool,
    ) -> None:
        self.model, self.config, self.meter, self.writes = model, config, meter, writes
        self._clock, self._keep_texts = clock, keep_texts
        self.engine: Engine = Alone(model, config)

    def read(
        self, state: SessionState, ids: Sequence[int], source: str, *, sleeps: bool, time: float | None = None
    ) -> tuple[SessionState, Tensor]:
        """Read tokens, sleeping on full windows if ``sleeps``; returns their final hidden states ``[1, T, d_model]``.

        ``time``: when that was; None: now. The state that was given stays as it was: what is written in place of its
        window lies behind its last token.
        """
        hidden = [state.window.last_BE[:, None][:, :0]]
        left_BT = torch.tensor([ids], dtype=torch.int64, device=state.window.tokens_BL.device)
        while left_BT.shape[1]:
            window = state.window.clone() if state.shared else state.window
            piece_BT, left_BT = left_BT.tensor_split((self.config.window_size - window.fill,), 1)
            n = piece_BT.shape[1]
            with self.meter.time(self.meter.cost.wake), torch.no_grad():
                window, h = self.engine.read(window, piece_BT)
            self.meter.read(n, window.cache.fill[0] - n)
            hidden.append(h)
            sources = added(state.sources, source, n)
            state = replace(state, window=window, shared=False, sources=sources, tokens_seen=state.tokens_seen + n)
            if sleeps and window.fill == self.config.window_size:
                state, _ = self._close(state, None, None, time)
        if self._keep_texts and ids:
            read = Read(self._clock() if time is None else time, source, tuple(ids))
            state = replace(state, events=state.events.plus(read))
        return state, torch.cat(hidden, 1)

    def sleep(
        self,
        state: SessionState,
        n_passes: int | None = None,
        stop: Callable[[], bool] | None = None,
        time: float | None = None,
    ) -> tuple[SessionState, int]:
        """Close a window that holds something; returns the passes that were made over it.

        Args:
            state: before.
            n_passes: in all; None: N, or as many as the write policy says; it is not exceeded.
            stop: asked between passes; True ends them.
            time: when that was; None: now.
        """
        stopped = False

        def stops() -> bool:
            nonlocal stopped
            stopped = stop is not None and stop()
            return stopped

        state, passes = self._close(state, n_passes, None if stop is None else stops, time)
        if self._keep_texts:
            slept = Slept(self._clock() if time is None else time, n_passes, passes if stopped else None)
            state = replace(state, events=state.events.plus(slept))
        return state, passes

    def replay(self, state: SessionState, event: Read | Slept, *, sleeps: bool) -> SessionState:
        """What an event did, done to another state at the same time."""
        if isinstance(event, Read):
            return self.read(state, event.tokens, event.source, sleeps=sleeps, time=event.time)[0]
        if not state.window.fill:
            return state
        if (limit := event.stopped_after) is None:
            return self.sleep(state, event.n_passes, time=event.time)[0]
        asked = iter(range(1, limit + 1))
        return self.sleep(state, event.n_passes, lambda: next(asked, limit) >= limit, event.time)[0]

    def _close(
        self, state: SessionState, n_passes: int | None, stop: Callable[[], bool] | None, time: float | None
    ) -> tuple[SessionState, int]:
        window, sources = state.window, labels(state.sources)
        config = self._passes_of(state, n_passes)
        kept = [True] * len(sources) if self.writes is None else self.writes.kept(sources)
        tokens = window.tokens_BL[0, : window.fill]
        made: list[PassRecord] = []
        changes: list[tuple[float, ...]] = []

        def observe(record: PassRecord) -> None:
            made[:] = [record]
            changes.append(head_changes(record.memory_in, record.memory_out))

        with self.meter.time(self.meter.cost.sleep), torch.no_grad():
            if not all(kept):  # what may stay is read again, alone
                window = OpenWindow.opened(self.model, self.config, window.start)
                tokens = tokens[torch.tensor(kept, device=tokens.device)]
                if len(tokens):
                    window, _ = self.engine.read(window, tokens[None])
            memory = window.start
            if window.fill:
                memory = self.engine.close(config, window, observe, stop)
        passes = made[0].n if made else 0
        self.meter.slept(len(tokens), passes, config, again=not all(kept))
        line = WindowLine(
            self._clock() if time is None else time,
            counted(s for s, k in zip(sources, kept, strict=True) if k),
            counted(s for s, k in zip(sources, kept, strict=True) if not k),
            passes,
            float(change(window.start, memory)[0]) if memory.states else 0.0,
            self._hash(state, tokens, [s for s, k in zip(sources, kept, strict=True) if k], passes),
        )
        last = LastWindow(tuple(tokens.tolist()), tuple(changes), head_changes(window.start, memory))
        opened = OpenWindow.opened(self.model, self.config, memory, state.window.last_BE)
        lines = state.lines.plus(line)
        return replace(state, window=opened, shared=False, sources=(), lines=lines, last=last), passes

    def _passes_of(self, state: SessionState, n_passes: int | None) -> SleepConfig:
        """The sleep of a window: ``n_passes``, or as many as usual, but no more than the write policy allows."""
        usual = self.config.n_passes
        if self.writes is not None:
            allowed = usual = max(1, self.writes.of_window(state.sources))
            n_passes = None if n_passes is None else min(n_passes, allowed)
        return self.config.with_passes(usual if n_passes is None else n_passes)

    def _hash(self, state: SessionState, tokens: Tensor, sources: Sequence[str], passes: int) -> str:
        runs: tuple[tuple[str, int], ...] = ()
        for source in sources:
            runs = added(runs, source, 1)
        before = state.lines.last
        return chain_hash("" if before is None else before.hash, tokens.tolist(), runs, passes)


def head_changes(before: Memory, after: Memory) -> tuple[float, ...]:
    """``|S' - S| / |S'|`` of every head of every layer, first to last; 0 where both are zero."""
    found = []
    for a, b in zip(before.states, after.states, strict=True):
        norm = b[0].flatten(1).norm(dim=1)
        found.append((b[0] - a[0]).flatten(1).norm(dim=1) / norm.clamp(min=torch.finfo(b.dtype).tiny))
    return tuple(torch.cat(found).tolist()) if found else ()
