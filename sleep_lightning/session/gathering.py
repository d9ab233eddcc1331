"""Calls of many threads, answered together: a worker takes all that wait and computes them at once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

PATIENCE = 0.002
"""Seconds without a new call after which a worker waits for no further ones."""


@dataclass(eq=False)
class _Call(Generic[Item, Answer]):
    item: Item
    thread: int = field(default_factory=threading.get_ident)
    done: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None
    error: BaseException | None = None


class Gathering(Generic[Item, Answer]):
    """A function of many items, called by many threads with one item each.

    Workers are threads of their own: each thread that runs kernels keeps a team of kernel threads.

    Args:
        run: answers of some items, in their order; at most ``workers`` calls of it at a time.
        most: items of one call of ``run``.
        workers: started as they are needed.
        name: of the threads.
        more: whether there are threads that might call soon; None: those that were answered last, until they ``leave``.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Answer]],
        most: int,
        workers: int,
        name: str,
        more: Callable[[], bool] | None = None,
    ) -> None:
        self._run, self._most, self._workers, self._name = run, most, workers, name
        self._expected: set[int] = set()  # threads that were answered last
        self._more = more or (lambda: bool(self._expected))
        self._waiting: list[_Call[Item, Answer]] = []
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._collecting = self._closed = False

    def __call__(self, item: Item) -> Answer:
        """The answer for one item. Raises what ``run`` does for it alone."""
        call = _Call[Item, Answer](item)
        with self._changed:
            if self._closed:
                raise RuntimeError(f"{self._name} is closed")
            self._waiting.append(call)
            self._expected.discard(call.thread)
            if not self._collecting and not self._idle and len(self._threads) < self._workers:
                self._threads.append(threading.Thread(target=self._work, name=self._name, daemon=True))
                self._threads[-1].start()
            self._tell()
        call.done.wait()
        if call.error is not None:
            raise call.error
        return call.answer  # type: ignore[return-value]

    def leave(self) -> None:
        """This thread will not call again soon: nobody waits for it."""
        with self._changed:
            self._expected.discard(threading.get_ident())
            self._tell()

    def close(self) -> None:
        """End the workers, and wait for that: a thread that still ends when the interpreter does, in a kernel's team,
        would abort it. Calls that wait are answered first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _tell(self) -> None:
        """Wake a worker: one that collects only once it has all."""
        if not self._collecting or self._complete():
            self._changed.notify_all()

    def _complete(self) -> bool:
        return self._closed or len(self._waiting) >= self._most or not self._more()

    def _work(self) -> None:
        while calls := self._take():
            self._answer(calls)
            with self._changed:
                self._expected |= {call.thread for call in calls}
            for call in calls:
                call.done.set()

    def _take(self) -> list[_Call[Item, Answer]]:
        """What waits, once no more are to be expected; nothing: it is time to end."""
        with self._changed:
            while not self._closed and (self._collecting or not self._waiting):
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            self._collecting, n = True, 0
            while not self._complete() and n < len(self._waiting):
                n = len(self._waiting)
                self._changed.wait(PATIENCE)
            self._collecting = False
            self._expected.clear()  # who has not come by now is not waited for again
            calls, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            self._changed.notify_all()
            return calls

    def _answer(self, calls: list[_Call[Item, Answer]]) -> None:
        """One that fails is tried alone, so that it fails for itself only."""
        try:
            for call, answer in zip(calls, self._run([call.item for call in calls]), strict=True):
                call.answer = answer
        except BaseException as error:
            if len(calls) == 1:
                calls[0].error = error
                return
            for call in calls:
                self._answer([call])
