"""The bill of a session: what reading and answering took, and what sleeping took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sleep_lightning.model import WindowModel
from sleep_lightning.sleep import SleepConfig, Window, plan_passes
from sleep_lightning.sleep.counted_flops import logits_flops
from sleep_lightning.sleep.schedule import PassFlops, PlannedWindow


@dataclass
class Line:
    """One line of the bill.

    Attributes:
        tokens: tokens that went through the blocks; asleep: once for every pass after the first.
        flops: FLOPs, a multiply-add is 2 (``PassFlops``, as ``cost`` says them).
        seconds: of wall-clock time.
    """

    tokens: int = 0
    flops: int = 0
    seconds: float = 0.0


@dataclass
class Cost:
    """What a session has spent so far, on answers that were thrown away or rolled back too.

    Attributes:
        wake: reading and answering: the first pass over every token, and the output head.
        sleep: passes 2 to N, and all of those over what was read again without sources that may not be slept on.
    """

    wake: Line = field(default_factory=Line)
    sleep: Line = field(default_factory=Line)


class Meter:
    """Adds to a bill.

    Args:
        model: that works.
        config: its sleep.
        cost: the bill.
    """

    def __init__(self, model: WindowModel, config: SleepConfig, cost: Cost) -> None:
        self.cost, self._model, self._flops = cost, model, PassFlops(model, config)

    @contextmanager
    def time(self, line: Line) -> Iterator[None]:
        """Add the seconds spent inside to a line."""
        start = time.perf_counter()
        try:
            yield
        finally:
            line.seconds += time.perf_counter() - start

    def read(self, T: int, cached_tokens: int) -> None:
        """T tokens read behind ``cached_tokens`` that attention sees."""
        self.cost.wake.tokens += T
        self.cost.wake.flops += self._flops.of_reading(T, cached_tokens)

    def logits(self, T: int) -> None:
        """The output head on T tokens."""
        self.cost.wake.flops += logits_flops(self._model, T)

    def slept(self, T: int, passes: int, config: SleepConfig, *, again: bool = False) -> None:
        """``passes`` of the loop over T tokens; the first was their reading, unless they were read ``again`` for it.

        N of them are ``config``'s.
        """
        line, first = self.cost.sleep, 1 if again else 2
        if again and T:
            line.flops += self._flops.of_reading(T, config.cached_tokens)
        window = PlannedWindow(Window(0, T, True), plan_passes(self._model, config, sleeps=True), T, False, False)
        line.tokens += T * max(0, passes - first + 1)
        line.flops += self._flops.after_reading(window, passes)
