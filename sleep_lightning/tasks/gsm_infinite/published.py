"""Problems as they are published: JSON lines, a JSON array or Parquet with problem, question, solution and op, or a
directory of such files.

Realistic problems (medium and hard) answer with an integer that ends the solution, symbolic ones with the variables of
``answer_list``. What is taken of a file, and what is left out, is counted.
"""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sleep_lightning.tasks.dealing import split_of
from sleep_lightning.tasks.gsm_infinite.config import GSMInfiniteKeys
from sleep_lightning.tasks.gsm_infinite.equations import Mode
from sleep_lightning.tasks.gsm_infinite.settings import SETTINGS
from sleep_lightning.tasks.task import Split
from sleep_lightning.tasks.text.records import open_records

PUBLISHED_MODES: dict[str, Mode] = {"normalforward": "forward", "forwardreverse": "reverse"}
"""Modes by their published names."""
TEMPLATES = {setting.template: name for name, setting in SETTINGS.items()}
"""Settings by their published names."""
NOTHING = "none"
"""Answer of a symbolic problem that no variable fits."""
SHARES = {"zoo": 0.4, "movies": 0.05, "schools": 0.05}
"""Of the problems of one number of operations that are scored as published, for each mode."""
_PARTS = re.compile(r"(\D+)(\d*)")
FORMATS = (".jsonl", ".json", ".parquet")
"""Files of a directory that are read."""
_ANSWER = re.compile(r"answer:\s*(-?\d+)\s*(?:\.(?!\d)|$)", re.IGNORECASE)


class Record(NamedTuple):
    """A problem from a file. ``setting`` and ``mode`` are None where the record does not say."""

    question: str
    context: str
    answer: str
    op: int
    setting: str | None
    mode: Mode | None

    def split(self) -> Split:
        """By a hash of the text, so that a problem that occurs twice is in one split."""
        return split_of(f"{self.question}\n{self.context}")


def problem_files(path: str) -> list[Path]:
    """The file of a path, or those of a directory by name: as its generator writes them, one for each number of
    operations and process, or as a data set is downloaded, one for each number of operations."""
    folder = Path(path)
    if not folder.is_dir():
        return [folder]
    found = [file for file in folder.rglob("*") if file.suffix in FORMATS and file.is_file()]
    return sorted(found, key=lambda file: [(text, int(n or 0)) for text, n in _PARTS.findall(str(file))])


def read_problems(path: str, key: str, config: GSMInfiniteKeys, per_op: int | None = None) -> tuple[Record, ...]:
    """The problems of a file that ``ops``, ``settings`` and ``modes`` ask for; a warning counts the others.

    The answer is the number of ``solution`` ("Answer: 12."), or the variables of ``answer_list``, as published.

    Args:
        path: of the file, or of a directory of such.
        key: that named it, for messages.
        config: what is asked for.
        per_op: problems of each number of operations, in the published mix; None: all.

    Raises:
        ValueError: one sentence that names the file, the record and what is wrong with it.
    """
    found, dropped = list[Record](), Counter[str]()
    everything = [record for file in problem_files(path) for record in _records(str(file), key)]
    mixed = everything if per_op is None else published_mix(everything, per_op)
    if left := len(everything) - len(mixed):
        dropped["per_op"] = left
    for record in mixed:
        if record.op not in config.ops:
            dropped["op"] += 1
        elif record.setting is not None and record.setting not in config.settings:
            dropped["setting"] += 1
        elif record.mode is not None and record.mode not in config.modes:
            dropped["mode"] += 1
        else:
            found.append(record)
    total = len(found) + dropped.total()
    if not total:
        raise ValueError(f"{key}={path} holds no problems; give a file with one JSON object a line, or a directory")
    say_dropped(path, key, dropped, total)
    return tuple(found)


def published_mix(records: Sequence[Record], per_op: int) -> list[Record]:
    """The problems that are scored as published (``pred/pred.py`` of its repository): of each number of operations the
    first of every setting and mode, in their shares of ``per_op``; of symbolic ones the first ``per_op``."""
    total, taken = Counter(record.op for record in records), Counter[tuple[object, ...]]()
    found = []
    for record in records:
        kind, most = (record.op, record.setting, record.mode), min(per_op, total[record.op])
        if record.setting is not None and record.mode is not None:
            most = int(most * SHARES[record.setting])
        if taken[kind] < most:
            found.append(record)
        taken[kind] += 1
    return found


def say_dropped(path: str, key: str, dropped: Mapping[str, int], total: int) -> None:
    """A warning, if anything was left out: how much, and because of which keys."""
    keys = {"op": "task.ops", "setting": "task.settings", "mode": "task.modes", "per_op": "task.per_op"}
    keys["length"] = "task.min_tokens, max_tokens"
    if reasons := ", ".join(f"{n} by {keys[reason]}" for reason, n in dropped.items()):
        left = sum(dropped.values())
        warnings.warn(f"{key}={path}: {left} of {total} problems are left out ({reasons})", UserWarning, stacklevel=2)


def _records(path: str, key: str) -> Iterator[Record]:
    records = open_records(path, key)
    for place, row in records.scan():
        try:
            yield _record(row)
        except ValueError as error:
            raise ValueError(f"{records.origin(place)}: {error}") from error


def _record(row: Any) -> Record:
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object was expected, not {type(row).__name__}")
    kinds = {"problem": str, "question": str, "op": int} | ({} if _is_symbolic(row) else {"solution": str})
    for key, kind in kinds.items():
        if not isinstance(row.get(key), kind):
            whole = " (each record needs problem, question, op, and solution or answer_list)"
            raise ValueError(f"{key!r} is missing{whole}" if key not in row else f"{key!r} is not {kind.__name__}")
    setting, mode = TEMPLATES.get(str(row.get("template"))), PUBLISHED_MODES.get(str(row.get("mode")))
    return Record(row["question"].strip(), row["problem"].strip(), _answer(row), row["op"], setting, mode)


def _is_symbolic(row: dict[str, Any]) -> bool:
    return row.get("answer_list") is not None


def _answer(row: dict[str, Any]) -> str:
    if _is_symbolic(row):
        names = row["answer_list"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("'answer_list' is not a list of variables")
        return ", ".join(sorted(names)) or NOTHING
    answer = _ANSWER.search(row["solution"])
    if answer is None:
        raise ValueError("'solution' has no 'Answer: <integer>.'")
    return str(int(answer[1]))


def by_split(config: GSMInfiniteKeys) -> dict[Split, list[Record]]:
    """The problems of all files that are named; a split that has none of its own gets those that a hash deals to it."""
    whole: dict[Split, str | None] = {"validation": config.validation_file, "test": config.test_file}
    found: dict[Split, list[Record]] = defaultdict(list)
    for split, path in whole.items():
        if path is not None:
            found[split] = list(read_problems(path, f"task.{split}_file", config, config.per_op))
    if config.jsonl is not None:
        for record in read_problems(config.jsonl, "task.jsonl", config):
            split = record.split()
            found["train" if whole.get(split) is not None else split].append(record)
    return found
