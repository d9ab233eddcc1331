"""What every method of a session goes through: turns between threads, expiry, the audit, reading and sleeping."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from uuid import uuid4

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session.audit import Action, Audit, AuditLine
from sleep_lightning.session.cost import Cost, Meter
from sleep_lightning.session.provenance import ANSWER
from sleep_lightning.session.reader import Reader
from sleep_lightning.session.state import SessionState, Snapshot
from sleep_lightning.session.write_policy import WritePolicy
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.sleep.config import MOST_PASSES

Policy = Literal["on_full", "idle", "manual"]
POLICIES = ("on_full", "idle", "manual")
LONGEST_SOURCE = 1000
"""Characters of a label: each window that is closed keeps those of its tokens."""


class SessionExpired(ValueError):
    """The session is past its ``ttl``: its memory has been deleted."""


class SessionCore:
    """The state of a session and the one way to it; ``SleepSession`` has the arguments."""

    def __init__(
        self,
        model: HybridLM,
        config: SleepConfig,
        policy: Policy,
        writes: WritePolicy | None,
        keep_texts: bool,
        ttl: float | None,
        audit: Audit | None,
        clock: Callable[[], float],
    ) -> None:
        self.model, self.config, self.policy, self.writes = model, config, policy, writes
        self.id, self.keep_texts = uuid4().hex, keep_texts
        self.expires_at = None if ttl is None else clock() + ttl
        self._audit, self._clock = audit, clock
        self._lock, self._counting = threading.RLock(), threading.Lock()
        self._waiting = 0  # calls that have something to read, and for which a sleep that runs idly makes way
        self.last_use = time.monotonic()
        self._generating = False
        self._latest: Snapshot | None = None
        self._state = SessionState.fresh(model, config)
        self._bill(Cost())

    def _bill(self, cost: Cost) -> None:
        self.cost = cost
        meter = Meter(self.model, self.config, cost)
        self._reader = Reader(self.model, self.config, meter, self.writes, self._clock, self.keep_texts)

    @property
    def tokens_seen(self) -> int:
        """Tokens read since the session began or was reset."""
        return self._state.tokens_seen

    @property
    def window_fill(self) -> int:
        """Tokens in the open window: what has not been slept on yet."""
        return self._state.window.fill

    @property
    def windows_closed(self) -> int:
        """Windows that have been slept on."""
        return len(self._state.lines)

    @property
    def nbytes(self) -> int:
        """Bytes of the state, open window and all: constant. Provenance and kept texts are not in it, and grow."""
        return self._state.nbytes

    @property
    def memory(self) -> Memory:
        """What crosses windows, as the open window found it. Not to be changed."""
        return self._state.window.start

    @property
    def expired(self) -> bool:
        """Whether it is past its ttl."""
        return self.expires_at is not None and self._clock() >= self.expires_at

    @contextmanager
    def _working(self, action: Action, method: str, *, urgent: bool = False, **detail: Any) -> Iterator[None]:
        """Alone with the state, once the audit knows of it; ``urgent``: a sleep that runs idly is cut short.

        Raises:
            SessionExpired: it is past its ttl.
            ValueError: an answer is being generated.
        """
        with self._counting:
            self._waiting += urgent
        try:
            self._lock.acquire()
        finally:
            with self._counting:
                self._waiting -= urgent
        try:
            self._check_expiry()
            if self._generating:
                raise ValueError("an answer is being generated; exhaust or close its iterator first")
            if self._audit is not None:
                self._audit(AuditLine(self._clock(), self.id, action, method, detail))
            yield
        finally:
            self._used()
            self._lock.release()

    def _used(self) -> None:
        """The session has been used just now."""
        self.last_use = time.monotonic()

    def _check_expiry(self) -> None:
        if not self.expired:
            return
        self._state, self._latest = SessionState.fresh(self.model, self.config), None
        raise SessionExpired(f"session {self.id} has expired and its memory is deleted; begin a new one")

    def _wanted(self) -> bool:
        """Whether somebody waits to have something read."""
        return self._waiting > 0

    def _read(self, ids: list[int], source: str) -> Tensor:
        """Read tokens, all or none; their final hidden states ``[1, T, d_model]``."""
        self._check_room(len(ids))
        self._state, h_BTE = self._reader.read(self._state, ids, source, sleeps=self.policy != "manual")
        return h_BTE

    def _read_answer(self, ids: list[int]) -> None:
        self._read(ids, ANSWER)

    def _next_logits(self) -> Tensor:
        meter = self._reader.meter
        meter.logits(1)
        with meter.time(self.cost.wake), torch.no_grad():
            return self._reader.engine.logits(self._state.window.last_BE[:, None])[0, 0]

    def _check_room(self, T: int) -> None:
        room = self.config.window_size - self.window_fill
        if self.policy == "manual" and room < T:
            raise ValueError(
                f"{T} tokens do not fit into the window, which has room for {room}, and policy=manual does not sleep "
                f"by itself; call sleep() first, or use policy=on_full"
            )


def check_passes(n: int | None) -> None:
    """Raises ValueError for what is no number of passes."""
    if n is not None and (type(n) is not int or not 1 <= n <= MOST_PASSES):
        raise ValueError(f"sleep.n_passes={n!r} must be at least 1: it counts ALL passes; {MOST_PASSES} are the most")


def check_source(source: str) -> None:
    """Raises ValueError for what is no label."""
    if not isinstance(source, str) or not source or len(source) > LONGEST_SOURCE:
        raise ValueError(f"source={str(source)[:20]!r} must be a label of 1 to {LONGEST_SOURCE} characters")


def check_session(model: HybridLM, config: SleepConfig, policy: str, ttl: float | None) -> None:
    """Raises ValueError for a model or an option that cannot be read token by token."""
    if not isinstance(model, HybridLM):
        raise ValueError(f"a session reads token by token, which {type(model).__name__} cannot; give it a HybridLM")
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r} is unknown; use one of {', '.join(POLICIES)}")
    if ttl is not None and not ttl > 0:
        raise ValueError(f"ttl={ttl} must be above 0 seconds, or None for a session that does not expire")
    config.parts(model.n_blocks)
    for key, value, plain in (
        ("model.summary_tokens", model.summary_tokens, 0),
        ("sleep.wake_passes", config.wake_passes, 1),
        ("sleep.retrieved_windows", config.retrieved_windows, 0),
    ):
        if value != plain:
            raise ValueError(
                f"{key}={value} needs a whole window at once, and a session has its tokens; set it to {plain}"
            )
