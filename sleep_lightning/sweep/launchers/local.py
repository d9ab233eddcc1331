"""Runs as processes of this machine."""

from collections.abc import Sequence
from pathlib import Path

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.infrastructure import Ended
from sleep_lightning.runs.process import FitProcess, Watched, process_of
from sleep_lightning.sweep.gpus import choose_gpu
from sleep_lightning.sweep.launchers.launcher import Launcher


class LocalLauncher(Launcher):
    """A process for each run. Those left by a dead supervisor keep their GPUs.

    Args:
        runs: folder of the runs.
        threads: CPU threads of each run.
        devices: GPUs to distribute; None: each run sees the same GPUs as this process.

    Raises:
        ValueError: another machine trains one of the runs.
    """

    def __init__(self, runs: Path, threads: int, devices: Sequence[int] | None = None) -> None:
        super().__init__()
        self._threads, self._devices = threads, devices
        self._processes: dict[Path, Watched] = {}
        for path in sorted(file.parent for file in runs.glob("*/lock")):
            directory = RunDirectory(path)
            if (holder := directory.holder()) is not None and not holder.here:
                raise ValueError(
                    f"{path} is being trained by {holder}: wait for it, stop it, or resume with its launcher"
                )
            if (process := process_of(directory)) is not None:
                self._processes[path] = process

    def submit(self, run: FitProcess) -> None:
        path = run.directory.path
        if (process := run.orphan()) is None:
            process = run.start(self._threads, choose_gpu(self._devices, self._processes.values()))
        self._processes[path] = process

    def poll(self, run: FitProcess) -> Ended | None:
        path = run.directory.path
        if self._processes[path].alive():
            return None
        if (other := run.orphan()) is not None:  # started by a supervisor that has died
            self._processes[path] = other
            return None
        return run.ended(self._processes[path].exit_code())

    def signal(self, run: FitProcess) -> None:
        self._processes[run.directory.path].end()

    def cancel(self, run: FitProcess) -> None:
        self._processes[run.directory.path].kill()
