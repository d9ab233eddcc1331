"""What a Ray worker does with a run: trains it in a child process. No Ray in here, so that it can be tested without."""

import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import JsonFile
from sleep_lightning.runs.process import SUMMARY, Watched, inherited_environment, process_of

LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Order:
    """A run to train, with absolute paths in a file system that all nodes share.

    Attributes:
        run: its directory.
        log: file for its output.
        cwd: directory its commands run in.
        begin: command that starts it.
        resume: command that resumes it, once it has a ``config.yaml``.
        environment: variables added to those of the worker.
    """

    run: Path
    log: Path
    cwd: Path
    begin: list[str]
    resume: list[str]
    environment: dict[str, str] = field(repr=False)


class RunWorker:
    """The class behind a Ray actor. ``train`` and ``stop`` are called from different threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._process: Watched | None = None

    def ping(self) -> None:
        """Returns once the actor has been placed on a node."""

    def train(self, order: Order) -> int | None:
        """Train until the run has ended.

        A process that outlived its Ray worker still holds the run's lock: it is waited for, never doubled. If it ends
        without a result (its node was lost), the run resumes here.

        Returns:
            Its exit code, negative for a signal; 0 for a finished run; None if it was stopped before it started.
        """
        directory = RunDirectory(order.run)
        summary = JsonFile(directory.summary, SUMMARY, "remove it")
        while True:
            if (summary.read() or {}).get("status") == "FINISHED":
                return 0
            if directory.holder() is None:
                code = self._start_and_wait(order, directory)
                if code == 0 or self._stopped or directory.holder() is None:
                    return code
            elif not self._take_over(directory):
                return None
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Ask the run to save and stop (SIGTERM)."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.end()

    def _start_and_wait(self, order: Order, directory: RunDirectory) -> int | None:
        with self._lock:
            if self._stopped:
                return None
            command = order.resume if directory.config.exists() else order.begin
            environment = inherited_environment() | order.environment
            with order.log.open("ab") as log:
                process = psutil.Popen(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=order.cwd,
                    start_new_session=True,
                )
            self._process = Watched(process)
        code: int | None = process.wait()
        return code

    def _take_over(self, directory: RunDirectory) -> bool:
        """Watch the process that holds the run if it is on this machine. False if we were asked to stop."""
        with self._lock:
            self._process = process_of(directory)
            if self._stopped and self._process is not None:
                self._process.end()
        while self._process is not None and self._process.alive():
            time.sleep(LOOK_SECONDS)
        return not self._stopped
