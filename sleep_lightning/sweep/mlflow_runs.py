"""MLflow runs for the finished runs of a sweep that have none: taken from records, or trained without tracking."""

import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sleep_lightning.config import TrackingConfig
from sleep_lightning.redaction import one_line
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import finished_summary
from sleep_lightning.sweep.trial import run_path, seeds_by_trial
from sleep_lightning.tracking.importing import lacks_run, queue_import
from sleep_lightning.tracking.mlflow_logger import sync_command
from sleep_lightning.tracking.sync import send

REMEDY = "remove it: MLflow does without the run"


@dataclass
class RunImport:
    """Records each of them once. Threads may share it. Errors are warnings: tracking ends no sweep.

    Attributes:
        folder: of the sweep.
        tracking: store and experiment.
        keep: measures of the sweep, by the names under which loggers have them: what its charts show.
    """

    folder: Path
    tracking: TrackingConfig
    keep: frozenset[str] = frozenset()
    _seen: set[Path] = field(default_factory=set)
    _queued: list[Path] = field(default_factory=list)
    _away: bool = False
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def queue(self, parent_run_id: str) -> int:
        """Write those that are new into outboxes, under the sweep's MLflow run. Returns how many there are to send."""
        with self._mutex:
            for directory in self._finished():
                try:
                    if not lacks_run(directory):
                        continue
                    if (summary := finished_summary(directory, REMEDY)) is None:  # it was stopped, and is resumed
                        self._seen.discard(directory.path)
                        continue
                    queue_import(directory, summary, self.tracking, parent_run_id, self.keep)
                    self._queued.append(directory.path)
                except Exception as error:  # whatever it is: no record is worth the sweep
                    warnings.warn(f"{directory.path} will not be in MLflow: {one_line(error)}", stacklevel=2)
            return len(self._queued)

    def _finished(self) -> Iterator[RunDirectory]:
        """Directories with a summary, each once."""
        for number, seeds in seeds_by_trial(self.folder).items():
            for seed in seeds:
                directory = RunDirectory(run_path(self.folder, number, seed))
                if directory.path not in self._seen and directory.summary.exists():
                    self._seen.add(directory.path)
                    yield directory

    def send(self) -> None:
        """Send them, unless the store was away before: what is left is sent with all other outboxes at the end."""
        with self._mutex:
            while self._queued and not self._away:
                try:
                    self._away = send(self._queued[-1], self.tracking.uri) > 0
                except Exception as error:
                    self._away = True
                    text = f"MLflow lacks finished runs: {one_line(error)}; send them: {sync_command(self.folder)}"
                    warnings.warn(text, stacklevel=2)
                self._queued.pop()
