"""The engine of a pool: what sessions ask for at the same time is computed in one forward."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session.batch import Rows, close_rows
from sleep_lightning.session.engine import Observe, Stop
from sleep_lightning.session.gathering import Gathering
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.sleep import SleepConfig

SLEEPERS = 16
"""Sleeps at a time, each of one session or of several that have fallen asleep together."""
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class _Reading:
    window: OpenWindow
    tokens_BT: Tensor


_Asked = _Reading | Tensor
"""Tokens to be read, or hidden states whose logits are wanted."""


@dataclass(frozen=True)
class _Closing:
    window: OpenWindow
    config: SleepConfig
    observe: Observe | None
    stop: Stop | None


class BatchingEngine:
    """An engine for the sessions of one model and one configuration, each used by a thread of its own.

    Readers of one length share a forward; a longer piece is read in pieces of powers of two. Sleepers with as many
    tokens and passes share theirs, and nobody else waits for them.

    Args:
        model: of all sessions.
        config: of all sessions; N may differ.
        most: rows of a forward.

    Attributes:
        slept: called with the tokens of every window that was slept on.
    """

    slept: Callable[[int], None]

    def __init__(self, model: HybridLM, config: SleepConfig, most: int) -> None:
        self._model, self._config = model, config
        self._decoding = Rows(model, config)
        self._members, self._lock = 0, threading.Lock()
        self.slept = lambda tokens: None
        self._awake = Gathering[_Asked, Any](self._run, most, 1, "reading")
        self._asleep = Gathering(self._close, most, SLEEPERS, "sleeping", more=lambda: self._members > 1)

    @contextmanager
    def member(self) -> Iterator[None]:
        """Inside, a thread works on a session."""
        with self._lock:
            self._members += 1
        try:
            yield
        finally:
            with self._lock:
                self._members -= 1
                if not self._members:
                    self._decoding.forget()
            self._awake.leave()

    def shut_down(self) -> None:
        """End the workers."""
        self._awake.close()
        self._asleep.close()

    def read(self, window: OpenWindow, tokens_BT: Tensor) -> tuple[OpenWindow, Tensor]:
        hidden = []
        for piece_BT in tokens_BT.split(powers_of_two(tokens_BT.shape[1]), 1):
            window, h = self._awake(_Reading(window, piece_BT))
            hidden.append(h)
        return window, torch.cat(hidden, 1)

    def close(
        self, config: SleepConfig, window: OpenWindow, observe: Observe | None = None, stop: Stop | None = None
    ) -> Memory:
        self._awake.leave()
        memory = self._asleep(_Closing(window, config, observe, stop))
        self.slept(window.fill)
        return memory

    def logits(self, h_BTE: Tensor) -> Tensor:
        logits: Tensor = self._awake(h_BTE)
        return logits

    def _run(self, asked: Sequence[_Asked]) -> list[Any]:
        def run(some: list[_Asked]) -> Sequence[Any]:
            readings = [x for x in some if isinstance(x, _Reading)]
            if not readings:
                return self._model.logits(torch.cat([x for x in some if isinstance(x, Tensor)])).split(1)
            tokens_BT = torch.cat([r.tokens_BT for r in readings])
            rows = self._decoding if tokens_BT.shape[1] == 1 else Rows(self._model, self._config)
            return rows.read([r.window for r in readings], tokens_BT)

        with torch.no_grad():
            return _grouped(asked, _shape, run)

    def _close(self, asked: Sequence[_Closing]) -> list[Memory]:
        """Sleeps that end one by one, for one that may be stopped or by ``tolerance``, are made alone."""

        def close(some: list[_Closing]) -> list[Memory]:
            one = some[0]
            if one.stop is not None or one.config.tolerance is not None:
                return [a.window.close(self._model, a.config, a.observe, a.stop) for a in some]
            return close_rows(self._model, one.config, [a.window for a in some], [a.observe for a in some])

        with torch.no_grad():
            return _grouped(asked, lambda a: (a.window.fill, astuple(a.config), a.stop is None), close)


def _shape(asked: _Asked) -> tuple[bool, int]:
    """What calls that share a forward have in common."""
    tokens = asked if isinstance(asked, Tensor) else asked.tokens_BT
    return isinstance(asked, Tensor), tokens.shape[1]


def powers_of_two(n: int) -> list[int]:
    """``n`` as a sum, largest first: ``13 -> [8, 4, 1]``."""
    return [1 << i for i in reversed(range(n.bit_length())) if n >> i & 1]


def _grouped(items: Sequence[_T], key: Callable[[_T], object], run: Callable[[list[_T]], Sequence[_R]]) -> list[_R]:
    """``run`` on the items of each key, in the order of ``items``."""
    groups: dict[object, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(key(item), []).append(i)
    answers = {i: answer for at in groups.values() for i, answer in zip(at, run([items[j] for j in at]), strict=True)}
    return [answers[i] for i in range(len(items))]
