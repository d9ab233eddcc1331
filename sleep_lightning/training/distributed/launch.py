"""The other ranks of a run that was started alone: processes of this machine, children of the first rank."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console

from sleep_lightning.training.callbacks.preemption import StopReason
from sleep_lightning.training.distributed.ranks import Ranks

GRACE = 20.0
"""Seconds the first rank has to find out by itself that another one is gone."""


class OtherRanks:
    """Inside this context ranks 1, 2, ... run ``arguments``; they are waited for, or ended, when it is left.

    One that fails cannot be missed: whoever waits for it in an exchange may wait long, so this process then ends too.

    Args:
        ranks: the first rank; nothing is started if the others run already.
        arguments: of ``python -m sleep_lightning``.
        lost: called before this process is ended.
    """

    def __init__(self, ranks: Ranks, arguments: Sequence[str], lost: Callable[[], None]) -> None:
        self._ranks, self._arguments, self._lost = ranks, arguments, lost
        self._processes: list[subprocess.Popen[bytes]] = []
        self._over = threading.Event()

    def __enter__(self) -> "OtherRanks":
        if self._ranks.started:
            return self
        command = [sys.executable, "-m", "sleep_lightning", *self._arguments]
        for rank in range(1, self._ranks.size):
            environment = os.environ | self._ranks.variables(rank)
            self._processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        threading.Thread(target=self._watch, name="other-ranks", daemon=True).start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            failed = [
                (i, p.returncode) for i, p in enumerate(self._processes, 1) if p.poll() not in (None, 0, *StopReason)
            ]
            if failed and not self._over.wait(GRACE):
                text = f"error: rank {failed[0][0]} ended with exit code {failed[0][1]}; fit --resume goes on"
                Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)
                self._lost()
                self._kill()
                os._exit(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        deadline = time.monotonic() + GRACE
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()) if kind is None else 0)
            except subprocess.TimeoutExpired:
                continue
        self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
