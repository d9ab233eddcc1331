"""A thousand sessions in a pool that has room for some of them: questions, tokens, and what lies on disk."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch

from sleep_lightning.bench.contenders import VOCAB, answer, read_token
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.session import SessionPool, SleepSession
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.timing import interleave, percentiles

OWNER = "bench"
Use = Callable[[SleepSession], object]


@dataclass(frozen=True)
class PoolSize:
    """A pool: its model and sleep, how many sessions, how many of them fit into memory, and who asks.

    Attributes:
        read: tokens that each session has read.
        question: tokens of a question, which is thrown away again.
        callers: threads that ask at the same time.
        calls: timed at least, for a 99th percentile.
    """

    d_model: int = 64
    pattern: str = "AGAG"
    window: int = 64
    n_passes: int = 4
    sessions: int = 1000
    room: int = 250
    read: int = 100
    question: int = 16
    callers: tuple[int, ...] = (1, 16)
    calls: int = 500

    def pool(self, directory: Path) -> SessionPool:
        """Untrained, empty."""
        torch.manual_seed(0)
        config = SleepConfig(self.window, self.n_passes)
        model = HybridLM(ModelConfig(self.d_model, self.pattern), VOCAB)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return SessionPool(model, config, self.room * SleepSession(model, config).nbytes, directory)

    def __str__(self) -> str:
        return (
            f"{self.sessions} sessions, room for {self.room}, d{self.d_model} {self.pattern}, L={self.window}, "
            f"N={self.n_passes}"
        )


def bench_pool(seconds: float, size: PoolSize | None = None) -> Iterator[dict[str, object]]:
    """A row for questions and for tokens, of sessions in memory and on disk, by callers at a time; then the files.

    A caller's time has everything in it: waiting for others, putting a session aside, reading one from disk.
    """
    size = size or PoolSize()
    share = seconds / (4 * len(size.callers) + 1)
    with tempfile.TemporaryDirectory() as folder, size.pool(Path(folder)) as pool:
        names = [pool.create(OWNER) for _ in range(size.sessions)]
        pool.map(OWNER, names, lambda session: session.append([1] * size.read))
        uses: dict[str, Use] = {"a question": partial(answer, question=size.question), "a token": read_token}
        for lies, some in {"in memory": names[: size.room // 2], "on disk": names}.items():
            for what, use in uses.items():
                for callers in size.callers:
                    yield _row(pool, size, f"{what}, {lies}", some, use, callers, share)
        yield from _files(pool, size, share)


def _row(
    pool: SessionPool, size: PoolSize, what: str, names: Sequence[str], use: Use, callers: int, share: float
) -> dict[str, object]:
    def call(name: str) -> float:
        began = time.perf_counter()
        with pool.use(OWNER, name) as session:
            use(session)
        return time.perf_counter() - began

    times: list[float] = []
    turn = cycle(names)  # in this order, who lies on disk is the next to be asked
    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(call, islice(turn, len(names))))
        loads, began = pool.entries.loads, time.perf_counter()
        while len(times) < size.calls or time.perf_counter() - began < share:
            times += threads.map(call, islice(turn, max(callers, size.calls // 4)))
    taken = time.perf_counter() - began
    row: dict[str, object] = {"what": "pool", "shape": str(size), "contender": what, "callers": callers}
    row |= percentiles("call", times)
    return row | {
        "per_second": len(times) / taken,
        "loads_per_call": (pool.entries.loads - loads) / len(times),
        "session_bytes": pool.session_bytes,
        "bytes_in_memory": pool.entries.in_memory * pool.session_bytes,
        "timed": len(times),
    }


def _files(pool: SessionPool, size: PoolSize, share: float) -> Iterator[dict[str, object]]:
    """Loads and saves of one session, alone."""
    file = next(pool.directory.glob(f"{OWNER}/*.safetensors"))
    session = SleepSession.load(file, pool.model)
    calls: dict[str, Callable[[], object]] = {
        "load": lambda: SleepSession.load(file, pool.model),
        "save": lambda: session.save(file),
    }
    for name, times in interleave(calls, share, size.calls // 4, warm=False).items():
        row: dict[str, object] = {"what": "pool: files", "shape": str(size), "contender": f"{name}, alone"}
        yield row | percentiles("call", times) | {"file_bytes": file.stat().st_size, "timed": len(times)}
