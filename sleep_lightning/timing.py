"""Interleaved timing: A B C A B C ..., so that drift of the machine affects all alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender: median, minimum, and the number of rounds."""

    median: float
    minimum: float
    rounds: int


def interleave(
    contenders: Mapping[str, Callable[[], object]], seconds: float, rounds: int = 5, *, warm: bool = True
) -> dict[str, list[float]]:
    """Call every contender in turn for about ``seconds``, at least ``rounds`` times.

    Each is called once, untimed, before the first round and, with ``warm``, before every other.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end, done = time.perf_counter() + seconds, 0
    while done < rounds or time.perf_counter() < end:
        for name, call in contenders.items():
            if warm or not done:  # in one process, a contender must not pay for memory that its predecessor freed
                call()
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
        done += 1
    return times


def summarize(times: list[float]) -> Timing:
    return Timing(statistics.median(times), min(times), len(times))


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median of the ratios round by round: how many times faster ``fast`` is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def percentile(times: Sequence[float], p: int) -> float:
    """The smallest that ``p`` percent of them do not exceed."""
    return sorted(times)[max(0, math.ceil(len(times) * p / 100) - 1)]


def percentiles(name: str, times: Sequence[float]) -> dict[str, float | None]:
    """Columns of a row with the 50th and the 99th, in milliseconds; None if nothing was timed."""
    return {f"{name}_p{p}_ms": 1e3 * percentile(times, p) if times else None for p in (50, 99)}
