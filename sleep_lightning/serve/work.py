"""Whose turn it is: requests of one session one after the other, of different sessions at once, sleeps behind them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from sleep_lightning.serve.errors import told
from sleep_lightning.serve.limits import LimitReached

THREADS = 32
T = TypeVar("T")
Key = tuple[str, str]


class Work:
    """Runs what works on a session in a thread. All methods belong to one event loop.

    Args:
        waiting: requests of an owner at a time.
        directory: of the sessions, which no client is told.
        threads: at a time, of all owners.

    Attributes:
        failures: why the last thing queued for a session has failed.
    """

    def __init__(self, waiting: int, directory: Path, threads: int = THREADS) -> None:
        self._most, self._directory, self._threads = waiting, directory, ThreadPoolExecutor(threads, "work")
        self._of_owner: Counter[str] = Counter()
        self._turns: dict[Key, tuple[asyncio.Lock, int]] = {}
        self._queued: Counter[Key] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures: dict[Key, str] = {}

    async def run(self, owner: str, name: str, f: Callable[[], T]) -> T:
        """``f()`` in a thread, in the session's turn. Raises LimitReached, or what it raises."""
        async with self.turn(owner, name):
            return await self.in_thread(f)

    async def in_thread(self, f: Callable[[], T]) -> T:
        """``f()`` in a thread; it is never left alone, even if the request is given up."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, f)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    @asynccontextmanager
    async def turn(self, owner: str, name: str) -> AsyncIterator[None]:
        """The session's turn: requests come in the order in which they have arrived. Raises LimitReached."""
        self._admit(owner)
        async with self._admitted(owner, name):
            yield

    def _admit(self, owner: str) -> None:
        if self._of_owner[owner] >= self._most:
            raise LimitReached(f"{self._most} requests of yours are being worked on; wait for one of them")
        self._of_owner[owner] += 1

    @asynccontextmanager
    async def _admitted(self, owner: str, name: str) -> AsyncIterator[None]:
        lock, users = self._turns.get((owner, name), (asyncio.Lock(), 0))
        self._turns[owner, name] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            self._of_owner[owner] -= 1
            lock, users = self._turns[owner, name]
            if users > 1:
                self._turns[owner, name] = lock, users - 1
            else:
                del self._turns[owner, name]

    def queue(self, owner: str, name: str, f: Callable[[], object]) -> int:
        """Have ``f()`` run in the session's turn, behind what is queued already. Returns how much that is now.

        Raises LimitReached. What ``f`` raises is kept in ``failures`` until something queued succeeds.
        """
        self._admit(owner)
        self._queued[owner, name] += 1
        self.keep(asyncio.create_task(self._run_queued(owner, name, f)))
        return self._queued[owner, name]

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Have a task waited for by ``drain``."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def queued(self, owner: str, name: str) -> int:
        """What is queued for a session, and being worked on."""
        return self._queued[owner, name]

    @property
    def all_queued(self) -> int:
        """Of all sessions."""
        return self._queued.total()

    async def drain(self) -> None:
        """Until nothing is queued."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def close(self) -> None:
        """Wait for all threads."""
        self._threads.shutdown()

    async def _run_queued(self, owner: str, name: str, f: Callable[[], object]) -> None:
        try:
            async with self._admitted(owner, name):
                await self.in_thread(f)
            self.failures.pop((owner, name), None)
        except Exception as error:
            self.failures[owner, name] = told(error, self._directory)[1]
        finally:
            self._queued[owner, name] -= 1
            if not self._queued[owner, name]:
                del self._queued[owner, name]
