"""Problems as they are published: JSON lines, a JSON array or Parquet with problem, question, solution and op.

Realistic problems (medium and hard) answer with an integer that ends the solution, symbolic ones with the variables of
``answer_list``. What is taken of a file, and what is left out, is counted.
"""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
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
_ANSWER = re.compile(r"answer:\s*(-?\d+)\s*\.?\s*$", re.IGNORECASE)


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


def read_problems(path: str, key: str, config: GSMInfiniteKeys) -> tuple[Record, ...]:
    """The problems of a file that ``ops``, ``settings`` and ``modes`` ask for; a warning counts the others.

    The answer is the number that ends ``solution`` ("Answer: 12."), or the variables of ``answer_list``, as published.

    Raises:
        ValueError: one sentence that names the file, the record and what is wrong with it.
    """
    found, dropped = list[Record](), Counter[str]()
    for record in _records(path, key):
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
        raise ValueError(f"{key}={path} holds no problems; give a file with one JSON object a line")
    say_dropped(path, key, dropped, total)
    return tuple(found)


def say_dropped(path: str, key: str, dropped: Mapping[str, int], total: int) -> None:
    """A warning, if anything was left out: how much, and because of which keys."""
    keys = {"op": "task.ops", "setting": "task.settings", "mode": "task.modes", "length": "task.min_tokens, max_tokens"}
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
        raise ValueError("'solution' does not end in 'Answer: <integer>'")
    return str(int(answer[1]))


def same_answer(said: str, answer: str) -> bool:
    """The published judgement: the same integer, or the same variables in any order."""
    return set(re.split(r"[\s,]+", said.strip(" ."))) == set(re.split(r"[\s,]+", answer.strip()))


def published_metrics(accuracy: Mapping[int, float]) -> dict[str, float | None]:
    """The published figures of accuracies by number of operations (GSM-Infinite, arXiv:2502.05252).

    ``auc``: the area under accuracy over operations, trapezoids; ``mean_accuracy``: over operations;
    ``first_op_below_50`` and ``_10``: the fewest operations that are solved less often than that; None: there are none.
    """
    points = sorted(accuracy.items())
    area = sum((a + b) / 2 * (right - left) for (left, a), (right, b) in pairwise(points))
    below = {share: next((op for op, one in points if one < share / 100), None) for share in (50, 10)}
    mean = sum(one for _, one in points) / len(points)
    return {"auc": area, "mean_accuracy": mean} | {f"first_op_below_{share}": op for share, op in below.items()}


def by_split(config: GSMInfiniteKeys) -> dict[Split, list[Record]]:
    """The problems of all files that are named; a split that has none of its own gets those that a hash deals to it."""
    whole: dict[Split, str | None] = {"validation": config.validation_file, "test": config.test_file}
    found: dict[Split, list[Record]] = defaultdict(list)
    for split, path in whole.items():
        if path is not None:
            found[split] = list(read_problems(path, f"task.{split}_file", config))
    if config.jsonl is not None:
        for record in read_problems(config.jsonl, "task.jsonl", config):
            split = record.split()
            found["train" if whole.get(split) is not None else split].append(record)
    return found
