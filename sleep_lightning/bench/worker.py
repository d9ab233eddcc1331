"""A contender in a process of its own, so that allocator, thread pools and matmul mode are not shared."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch


class Worker:
    """Builds a callable in a new process; calling the worker calls it there and waits.

    Args:
        build: a function at the top of a module, called there with ``arguments``; returns the callable.
        arguments: must be picklable.
    """

    def __init__(self, build: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        call = (there, torch.get_num_threads(), build, arguments)
        self._process = context.Process(target=_serve, args=call, daemon=True)
        self._process.start()
        there.close()

    def __call__(self) -> None:
        """Raises RuntimeError if the process has died; the reason is on its standard error."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start a call without waiting; raises as ``__call__`` does."""
        self._or_died(lambda: self._here.send(None))

    def wait(self) -> None:
        """Wait for the call that ``begin`` started; raises as ``__call__`` does."""
        self._or_died(self._here.recv)

    def _or_died(self, talk: Callable[[], object]) -> None:
        try:
            talk()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._process.join()
            raise RuntimeError(f"a benchmark process died with exit code {self._process.exitcode}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._here.close()  # the process ends when its connection closes
        self._process.join()


def together(workers: Sequence[Worker]) -> Callable[[], None]:
    """A callable that calls all workers concurrently and waits for all."""

    def call() -> None:
        for worker in workers:
            worker.begin()
        for worker in workers:
            worker.wait()

    return call


def _serve(
    connection: Connection, threads: int, build: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(threads)
    call = build(*arguments)
    try:
        while True:
            connection.recv()
            call()
            connection.send(None)
    except (EOFError, KeyboardInterrupt):
        return
