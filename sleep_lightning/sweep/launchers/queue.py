"""Runs that wait for a worker, as files that go from folder to folder by rename: of two who want one, one gets it."""

import json
import os
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sleep_lightning.runs.directory import write_json, write_text

Stop = Literal["save", "kill"]


class Queue:
    """``queue/{waiting,taken,ended,stop}/`` in a sweep's folder, which all machines see.

    A run is one file: ``<run>.json`` in ``waiting``, then ``<run>@<worker>.json`` in ``taken``, whose time the worker
    renews, then ``<run>.json`` in ``ended``, with how it ended. A file in ``stop`` asks for its end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "queue"
        for name in ("waiting", "taken", "ended", "stop"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def closed(self) -> bool:
        """Whether the sweep is at its end."""
        return (self.folder / "closed").exists()

    def close(self) -> None:
        (self.folder / "closed").touch()

    def reopen(self) -> None:
        (self.folder / "closed").unlink(missing_ok=True)

    def put(self, run: str, threads: int) -> None:
        """Have a run trained, unless it waits or is being trained already."""
        for name in ("ended", "stop"):
            self._file(name, run).unlink(missing_ok=True)
        if not self._file("waiting", run).exists() and self.taken(run) is None:
            write_json(self._file("waiting", run), {"threads": threads})

    def waits(self, run: str) -> bool:
        return self._file("waiting", run).exists()

    def taken(self, run: str) -> Path | None:
        """The file of the worker that has it; None if none has."""
        return next(iter((self.folder / "taken").glob(f"{run}@*.json")), None)

    def ended(self, run: str) -> str | None:
        """How it ended, once it has."""
        try:
            content = json.loads(self._file("ended", run).read_text())
        except FileNotFoundError:
            return None
        return str(content.get("how", "taken back before a worker had it"))

    def take_back(self, run: str) -> bool:
        """End a run that waits; False if it does not."""
        return _renamed(self._file("waiting", run), self._file("ended", run))

    def put_back(self, taken: Path) -> bool:
        """Let another worker have it; False if it is not its holder's any more."""
        return _renamed(taken, self._file("waiting", taken.name.partition("@")[0]))

    def claim(self, worker: str, free: Callable[[str], bool]) -> Path | None:
        """The file of a waiting run, which is the worker's from now on; None if none is free to be begun."""
        for waiting in sorted((self.folder / "waiting").glob("*.json")):
            taken = self.folder / "taken" / f"{waiting.stem}@{worker}.json"
            if free(waiting.stem) and _renamed(waiting, taken):
                self.renew(taken)
                return taken
        return None

    def renew(self, taken: Path) -> bool:
        """Tell that its worker lives; False if the run is another's by now."""
        try:
            os.utime(taken)
        except FileNotFoundError:
            return False
        return True

    def finish(self, taken: Path, how: str) -> None:
        """The run has ended."""
        write_json(self._file("ended", taken.name.partition("@")[0]), {"how": how})
        taken.unlink(missing_ok=True)

    def stop(self, run: str, how: Stop) -> None:
        """Ask who trains it to end it."""
        write_text(self.folder / "stop" / f"{run}.json", how)

    def asked_to_stop(self, run: str) -> Stop | None:
        try:
            return "kill" if self._file("stop", run).read_text() == "kill" else "save"
        except FileNotFoundError:
            return None

    def _file(self, state: str, run: str) -> Path:
        return self.folder / state / f"{run}.json"


def worker_name() -> str:
    """A name no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


def _renamed(source: Path, target: Path) -> bool:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return False
    return True
