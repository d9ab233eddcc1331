"""Lightning's launcher for the other ranks of this node, with time for rank zero to end well when one is lost."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from rich.console import Console

from sleep_lightning.runs.infrastructure import Cause, cause_of_exit
from sleep_lightning.training.distributed.rendezvous import open_rendezvous
from sleep_lightning.training.runtime.threads import choose_threads

GRACE = 20.0
"""Seconds rank zero has to find out by itself that another rank is gone, and others to end after it."""


class RankLauncher(_SubprocessScriptLauncher):
    """Starts this program again as ranks 1, 2, ... of this node, as Lightning's own launcher does.

    Lightning kills all processes at once when one has failed. Here rank zero, whose collective fails first, has
    ``GRACE`` seconds to report the loss and to close its run; only if it still waits then, the process is ended.

    Attributes:
        on_lost: called before this process is ended because a rank was lost.
        threads: CPU threads of each rank; None: its share of the cores.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_lost: Callable[[], None] = lambda: None
        self.threads: int | None = None

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the other ranks unless they run already, then call ``function``."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            if self.num_nodes == 1:
                open_rendezvous()
            self._call_children_scripts()
            threading.Thread(target=self._watch, args=(tuple(self.procs),), name="ranks", daemon=True).start()
        choose_threads(self.threads, self.num_processes)
        return function(*args, **kwargs)

    def _watch(self, ranks: Sequence[subprocess.Popen[bytes]]) -> None:
        while any(p.poll() is None for p in ranks):
            time.sleep(0.5)
            if failed := [(rank, p.returncode) for rank, p in enumerate(ranks, 1) if p.poll()]:
                time.sleep(GRACE)
                text = f"error: rank {failed[0][0]} ended with exit code {failed[0][1]}; fit --resume resumes the run"
                Console(stderr=True, emoji=False).print(text, highlight=False, soft_wrap=True, markup=False)
                self.on_lost()
                self.end_ranks(0)
                os._exit(self.exit_code(Cause.NODE))

    def exit_code(self, cause: Cause, seconds: float = 5.0) -> int:
        """That of this process once a rank is gone: 1 if a rank of this node ended by its own fault within so many
        seconds, the cause of its end, or the given one."""
        deadline = time.monotonic() + seconds
        while self.procs and not any(process.poll() for process in self.procs) and time.monotonic() < deadline:
            time.sleep(0.1)
        codes = [process.returncode for process in self.procs if process.returncode]
        return int(next((cause_of_exit(code) or 1 for code in codes), cause))

    def end_ranks(self, seconds: float = GRACE) -> None:
        """Wait for the other ranks, and kill those that have not ended after so many seconds."""
        deadline = time.monotonic() + seconds
        for process in self.procs:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
