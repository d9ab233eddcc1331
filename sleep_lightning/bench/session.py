"""A session's tokens and answers, over N and over what was read before, beside a transformer that keeps all of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from sleep_lightning.bench.timing import interleave
from sleep_lightning.model import HybridLM, Memory, ModelConfig
from sleep_lightning.model.open_window import open_window
from sleep_lightning.model.window_cache import WindowCache
from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import SleepConfig

VOCAB = 1024
QUESTION = 16
"""Tokens of a question; the time to its answer ends with the answer's first token."""
LEAST_TOKENS = 200
"""Timed at least, for a 99th percentile."""
MOST_READ = 8_000
"""Tokens that sessions really read: nothing that they compute depends on how many more there were."""


@dataclass(frozen=True)
class Size:
    """A model, its window, and what is varied."""

    d_model: int = 256
    pattern: str = "AGAG"
    window: int = 128
    passes: tuple[int, ...] = (1, 4, 16)
    tokens_read: tuple[int, ...] = (1_000, 8_000, 64_000)

    def model(self, pattern: str) -> HybridLM:
        """Untrained; attention has a gate, so that its blocks are as large as those of fast weights."""
        torch.manual_seed(0)
        heads = max(1, self.d_model // 64)
        return HybridLM(ModelConfig(self.d_model, pattern, n_heads=heads, attention_gate=True), VOCAB).to(_device())

    def __str__(self) -> str:
        return f"d{self.d_model} {self.pattern}, L={self.window}, one sequence"


class FullCache:
    """Attention in every block, over all tokens read: their keys and values are random numbers.

    Args:
        model: of attention alone.
        read: tokens before the first that is timed.
        more: room for those that are.
    """

    def __init__(self, model: HybridLM, read: int, more: int) -> None:
        self._model, self._memory = model, Memory(())
        _, self._cache = open_window(model, self._memory, read + more)
        for x in (*self._cache.keys, *self._cache.values):
            x.normal_()
        self._cache.present.fill_(True)
        self._start = self._cache = replace(self._cache, fill=(read,))
        self.nbytes = 2 * sum(x[:, :, :read].nbytes for x in self._cache.keys)

    def token(self) -> None:
        """Read one token and choose the next."""
        if self._cache.fill[0] == self._cache.size:
            self._cache = self._start
        self._cache = self._next(1, self._cache)

    def answer(self) -> None:
        """Read a question and choose the first token of its answer; the cache stays as it was."""
        self._next(QUESTION, self._start)

    @torch.no_grad()
    def _next(self, T: int, cache: WindowCache) -> WindowCache:
        cache, slots = cache.claim(T)
        h, _ = self._model.extend(self._model.embed(_tokens(T)), self._memory, slots)
        int(self._model.logits(h[:, -1:]).argmax())
        return cache


def bench_session(seconds: float, size: Size | None = None) -> Iterator[dict[str, object]]:
    """A row per contender and number of tokens read before: milliseconds, bytes, FLOPs.

    Tokens are read one by one, and windows slept on as they fill: that is in the slowest token, and in a column of its
    own.
    """
    size = size or Size()
    hybrid, transformer = size.model(size.pattern), size.model("A" * len(size.pattern))
    sessions = {f"sleep N={n}": SleepSession(hybrid, SleepConfig(size.window, n)) for n in size.passes}
    for read in size.tokens_read:
        full = FullCache(transformer, read, QUESTION + LEAST_TOKENS)
        for session in sessions.values():
            session.append([1] * (min(read, MOST_READ) - session.tokens_seen))
        before = {name: (s.cost.sleep.seconds, s.windows_closed) for name, s in sessions.items()}
        tokens: dict[str, Callable[[], object]] = {n: _token_of(s) for n, s in sessions.items()}
        answers: dict[str, Callable[[], object]] = {n: _answer_of(s) for n, s in sessions.items()}
        share = seconds / len(size.tokens_read) / 2
        per_token = interleave({**tokens, "full cache": full.token}, share, LEAST_TOKENS, warm=False)
        per_answer = interleave({**answers, "full cache": full.answer}, share, LEAST_TOKENS // 4, warm=False)
        for name in per_token:
            model, seen = (transformer, read) if name == "full cache" else (hybrid, size.window // 2)
            row: dict[str, object] = {"what": "answering", "shape": str(size), "contender": name, "tokens_read": read}
            row |= _percentiles("token", per_token[name]) | {"token_max_ms": 1e3 * max(per_token[name])}
            row |= _percentiles("answer", per_answer[name])
            row |= {"sleep_ms_per_window": 0.0, "bytes": full.nbytes}
            if name in sessions:
                session, (slept, closed) = sessions[name], before[name]
                windows = max(1, session.windows_closed - closed)
                row |= {"sleep_ms_per_window": 1e3 * (session.cost.sleep.seconds - slept) / windows}
                row["bytes"] = session.nbytes
            flops = model.pass_flops(1, range(model.n_blocks), cached_tokens=seen)
            assert flops is not None
            row["mflops_per_token"] = (flops.forward.total() + model.logits_flops(1)) / 1e6
            yield row | {"parameters": sum(p.numel() for p in model.parameters()), "tokens_timed": len(per_token[name])}


def _token_of(session: SleepSession) -> Callable[[], object]:
    def token() -> None:
        session.append([1])
        int(session.next_logits().argmax())

    return token


def _answer_of(session: SleepSession) -> Callable[[], object]:
    return lambda: session.ask([1] * QUESTION, 1, keep=False)


def _percentiles(name: str, times: Sequence[float]) -> dict[str, object]:
    ordered = sorted(times)
    return {f"{name}_p{p}_ms": 1e3 * ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (50, 99)}


def _tokens(T: int) -> torch.Tensor:
    return torch.ones(1, T, dtype=torch.int64, device=_device())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
