"""Finished runs in one file of JSON lines: committed, joined by ``cat``, and not trained a second time.

A record holds the whole experiment, its validations and its summary, so that a sweep on another machine finds the runs
of its own points among those of any sweep. Checkpoints are not in it.
"""

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.machine.locks import take
from sleep_lightning.runs.damage import DamagedFile, misfit
from sleep_lightning.runs.files import end_of_lines, write_json
from sleep_lightning.runs.history import ROW, write_history
from sleep_lightning.runs.process import RESTORED, SUMMARY, FitProcess
from sleep_lightning.runs.resume import differing
from sleep_lightning.runs.space import naming
from sleep_lightning.sweep.named_files import content_hashes

LIKE: dict[str, Any] = {"experiment": dict, "summary": SUMMARY, "history": [ROW]}
ELSEWHERE = ("checkpoint", "best_checkpoint", "mlflow_run_id")
"""Of a summary: what only the machine that trained has."""
SHARED = ("cost/wall_s", "cost/tokens_per_s", "cost/peak_memory_bytes", "cost/step_memory_bytes")
"""Of a validation: what depends on the machine and who else used it; the summary holds its last."""
FILES = "files"
"""Of a record: ``content_hashes`` of its experiment; earlier versions have none."""
DIGITS = 7
WAIT = 30.0
"""Seconds to wait for another sweep that adds a record."""
REMEDY = "remove that line, and the run is trained again"


class Records:
    """The file of records.

    Args:
        path: of the file; created with the first record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _by_key(self) -> dict[str, list[dict[str, Any]]]:
        """What the file holds, by experiment: several where files of the same names held something else; of equal ones
        the first. Raises DamagedFile: a line that is no record."""
        found: dict[str, list[dict[str, Any]]] = {}
        if not self.path.exists():
            return found
        lines = self.path.read_text(errors="replace").split("\n")
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline was cut off by a crash
            try:
                record = json.loads(line)
                if (lacking := misfit(record, LIKE)) is not None:
                    raise ValueError(lacking)
                same = found.setdefault(_key(load_experiment(record["experiment"], saved=True)), [])
            except (ValueError, RecursionError) as error:
                raise DamagedFile(self.path, f"line {number}: {error}", REMEDY) from error
            if _matching(same, record.get(FILES, {})) is None:
                same.append(record)
        return found

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def restore(self, run: FitProcess) -> bool:
        """Write a recorded run, unless it was begun here, into its directory. Returns whether it was.

        A record of other files of the same names is another run, and is named in a warning.
        """
        directory, same = run.directory, self._by_key.get(_key(run.experiment), [])
        if not same or directory.config.exists():
            return False
        here = content_hashes(run.experiment)
        if (record := _matching(same, here)) is None:
            key = next(key for key, content in same[0][FILES].items() if here.get(key, content) != content)
            text = (
                f"{directory.path} is trained: {self.path} has it with another {key}={run.experiment.flat().get(key)}"
            )
            warnings.warn(text, stacklevel=2)
            return False
        directory.path.mkdir(parents=True, exist_ok=True)
        write_history(directory.history, record["history"])
        write_json(directory.summary, record["summary"] | {RESTORED: str(self.path)})
        directory.record_experiment(run.experiment)
        return True

    def add(self, run: FitProcess) -> bool:
        """Append a finished run, unless the file has it. Returns whether it was added.

        A directory that holds another run than this, as one that was resumed for longer, is refused with a warning.
        """
        summary, key = run.summary, _key(run.experiment)
        if summary is None:
            return False
        files = content_hashes(run.experiment, before=_begun(run))
        if _matching(same := self._by_key.setdefault(key, []), files) is not None:
            return False
        if (another := _why_another(run)) is not None:
            warnings.warn(f"{run.directory.path} is not added to {self.path}: {another}", stacklevel=2)
            return False
        experiment = run.experiment.to_dict()
        del experiment["tracking"]
        experiment["training"] |= {"run_dir": None, "prelude_cache": None}  # of this machine, as what is in ELSEWHERE
        record = {
            "experiment": experiment,
            "history": [{k: x for k, x in row.items() if k not in SHARED} for row in run.history],
            "summary": {k: x for k, x in summary.items() if k not in ELSEWHERE},
            **({FILES: files} if files else {}),
        }
        same.append(record)
        line = json.dumps(_portable(record)).encode() + b"\n"
        with naming(self.path, len(line)), self.path.open("a+b") as file:
            if not take(file.fileno(), seconds=WAIT):  # sweeps that share the file
                text = f"{self.path} is locked by another process: {run.directory.path} is added at the next rerun"
                warnings.warn(text, stacklevel=2)
                return False
            file.truncate(end_of_lines(file))
            file.write(line)
        return True


def _matching(records: Iterable[dict[str, Any]], files: Mapping[str, str]) -> dict[str, Any] | None:
    """The first whose files are these, as far as both are known: earlier versions recorded none."""
    for record in records:
        known = record.get(FILES, {})
        if all(known[key] == files[key] for key in known.keys() & files.keys()):
            return record
    return None


def _begun(run: FitProcess) -> float | None:
    """When it was last started: what files held before, it may have read; seconds since 1970."""
    config = run.directory.config
    return config.stat().st_mtime if config.exists() else None


def _why_another(run: FitProcess) -> str | None:
    """What its directory was trained with that the run has not; None if nothing differs that counts."""
    config = run.directory.config
    if not config.exists() or not config.stat().st_size:
        return None
    try:
        there = run.directory.load_config().pinned()
    except ValueError as error:
        return str(error)
    if _key(there) == _key(run.experiment):
        return None
    own, wanted = _content(there), _content(run.experiment)
    key, (old, new) = next(iter(differing(own, wanted).items()))
    return f"it was trained with {key}={old}, not {new}"


def _key(experiment: Experiment) -> str:
    """Equal for experiments that train alike, wherever they are written and tracked. Numbers count as they are written:
    a residual scale of 1 / 3 is found again."""
    return json.dumps(_content(experiment), sort_keys=True)


def _content(experiment: Experiment) -> dict[str, Any]:
    content = experiment.to_dict()
    del content["tracking"]
    content["training"] |= {"run_dir": None, "threads": None, "prelude_cache": None, "search_path": []}
    portable: dict[str, Any] = _portable(content)
    return portable


def _portable(content: Any) -> Any:
    """Numbers as they are written, and paths below the current directory without it, as a configuration that is
    shipped names weights and files."""
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}")
    if isinstance(content, str):
        return content.removeprefix(f"{Path.cwd()}{os.sep}")
    if isinstance(content, dict):
        return {key: _portable(value) for key, value in content.items()}
    return [_portable(value) for value in content] if isinstance(content, list) else content
