"""What an answer costs over N and over what was read before, for sleep and for what stands in its place."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from sleep_lightning.bench.contenders import Contender, Models, Size
from sleep_lightning.compare.asking import whole_window_asker
from sleep_lightning.cost.answering import Asked, answer_cost, break_even
from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.timing import interleave, percentile, percentiles

ANSWERING, BREAK_EVEN = "answering", "sleep once, or loop with every answer"
"""The two tables."""
LEAST_TOKENS, LEAST_ANSWERS, LEAST_SLOW = 200, 50, 5
"""Timed at least; the first for a 99th percentile, the last of what takes long."""
SLOW = 1e9
"""FLOPs from which something does."""


def bench_session(seconds: float, size: Size | None = None) -> Iterator[dict[str, object]]:
    """A row per contender and number of tokens read before: milliseconds, FLOPs, bytes; then one per N with Q*.

    Tokens are read one by one, and windows slept on as they fill: that is in the slowest token.
    """
    models = Models(size or Size())
    share = seconds / (2 * len(models.size.tokens_read) + 2)
    for read in models.size.tokens_read:
        yield from _answering(models, read, share)
    yield from _break_even(models, share)


def _answering(models: Models, read: int, share: float) -> Iterator[dict[str, object]]:
    found = models.with_a_memory(read) | {"full cache": models.with_a_full_cache(read)}
    answers, tokens = _answers(found, share), _tokens(found, share)
    rows = [_row(models.size, name, read, c, answers[name], tokens.get(name, [])) for name, c in found.items()]
    del found  # the full cache may be as large as what follows
    again = models.reading_again(read)
    answers = _answers(again, share)
    yield from rows
    yield from (_row(models.size, name, read, c, answers.get(name, []), []) for name, c in again.items())


def _answers(found: Mapping[str, Contender], share: float) -> dict[str, list[float]]:
    asks = {name: c.ask for name, c in found.items() if c.ask}
    return _timed(asks, {name for name, c in found.items() if c.cost.answer_flops > SLOW}, share, LEAST_ANSWERS)


def _tokens(found: Mapping[str, Contender], share: float) -> dict[str, list[float]]:
    tokens = {name: c.token for name, c in found.items() if c.token}
    return _timed(tokens, {name for name, c in found.items() if (c.token_flops or 0) > SLOW}, share, LEAST_TOKENS)


def _timed(
    calls: Mapping[str, Callable[[], object]], slow: set[str], share: float, least: int
) -> dict[str, list[float]]:
    """Seconds of all in turn; ``slow`` ones are called a few times only."""
    if not calls:
        return {}
    times = interleave(calls, share, LEAST_SLOW, warm=False)
    quick = {name: call for name, call in calls.items() if name not in slow}
    done = min(map(len, times.values()))
    for name, more in interleave(quick, 0, max(0, least - done), warm=False).items():
        times[name] += more
    return times


def _row(
    size: Size, name: str, read: int, c: Contender, answers: Sequence[float], tokens: Sequence[float]
) -> dict[str, object]:
    row: dict[str, object] = {"what": ANSWERING, "shape": str(size), "contender": name, "N": c.n_passes}
    row |= {"tokens_read": read} | percentiles("answer", answers) | percentiles("token", tokens)
    return row | {
        "token_max_ms": 1e3 * max(tokens) if tokens else None,
        "answer_mflops": c.cost.answer_flops / 1e6,
        "token_mflops": None if c.token_flops is None else c.token_flops / 1e6,
        "bytes": c.nbytes,
        "sessions_per_gib": 2**30 / c.nbytes,
        "parameters": sum(p.numel() for p in c.model.parameters()),
        "answers_timed": len(answers),
        "tokens_timed": len(tokens),
    }


def _break_even(models: Models, share: float) -> Iterator[dict[str, object]]:
    """A row for each N above 1: a sleep on one window, the same passes over every answer, and Q*."""
    size, hybrid, sessions = models.size, models.hybrid, models.sessions
    asked = Asked(size.window, size.question)
    before = {n: (s.cost.sleep.seconds, s.windows_closed) for n, s in sessions.items()}
    interleave({str(n): _window_of(s) for n, s in sessions.items()}, share, LEAST_SLOW, warm=False)
    slept = {n: (s.cost.sleep.seconds - before[n][0]) / (s.windows_closed - before[n][1]) for n, s in sessions.items()}
    loops = {n: SleepConfig(size.window, wake_passes=n) for n in sorted({1, *size.passes})}
    asks = {str(n): whole_window_asker(hybrid, config, asked) for n, config in loops.items()}
    awake = {name: percentile(times, 50) for name, times in interleave(asks, share, LEAST_ANSWERS).items()}
    for n in (n for n in size.passes if n > 1):
        cost = answer_cost(hybrid, SleepConfig(size.window, n), asked)
        once, each = slept[n] - slept.get(1, 0.0), awake[str(n)] - awake["1"]
        yield {
            "what": BREAK_EVEN,
            "shape": f"{size}, a memory of one window",
            "N": n,
            "sleep_ms": 1e3 * once,
            "sleep_mflops": cost.sleep_flops / 1e6,
            "more_ms_per_answer": 1e3 * each,
            "more_mflops_per_answer": cost.looped_flops / 1e6,
            "break_even_by_ms": break_even(once, each),
            "break_even_by_flops": cost.questions,
        }


def _window_of(session: SleepSession) -> Callable[[], object]:
    return lambda: session.append([1] * session.config.window_size)
