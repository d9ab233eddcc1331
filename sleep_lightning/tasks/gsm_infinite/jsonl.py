"""Read problems in the published format: one JSON object per line with problem, question, solution and op."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from sleep_lightning.tasks.dealing import split_of
from sleep_lightning.tasks.gsm_infinite.equations import Mode
from sleep_lightning.tasks.gsm_infinite.settings import SETTINGS
from sleep_lightning.tasks.task import Split

PUBLISHED_MODES: dict[str, Mode] = {"normalforward": "forward", "forwardreverse": "reverse"}
"""Modes by their published names."""
TEMPLATES = {setting.template: name for name, setting in SETTINGS.items()}
"""Settings by their published names."""
_ANSWER = re.compile(r"answer:\s*(-?\d+)\s*\.?\s*$", re.IGNORECASE)


class Record(NamedTuple):
    """A problem from a file. ``setting`` and ``mode`` are None where the line does not say."""

    question: str
    context: str
    answer: int
    op: int
    setting: str | None
    mode: Mode | None

    def split(self) -> Split:
        """By a hash of the text, so that a problem that occurs twice is in one split."""
        return split_of(f"{self.question}\n{self.context}")


def read_jsonl(path: str) -> tuple[Record, ...]:
    """All problems of a file.

    The answer is the number that ends ``solution`` ("Answer: 12."), as it is published.

    Raises:
        ValueError: one sentence that names the file, the line and what is wrong with it.
    """
    try:
        records = tuple(_records(path))
    except OSError as error:
        raise ValueError(f"task.jsonl={path}: {error.strerror}; give a file, or null to generate problems") from error
    if not records:
        raise ValueError(f"task.jsonl={path} holds no problems; give a file with one JSON object a line")
    return records


def _records(path: str) -> Iterator[Record]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield _record(json.loads(line))
                except ValueError as error:  # JSON and UTF-8 errors are ValueErrors
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    raise ValueError(f"task.jsonl={path}, line {number}: {reason}; fix or delete that line") from error


def _record(row: Any) -> Record:
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object was expected, not {type(row).__name__}")
    kinds = {"problem": str, "question": str, "solution": str, "op": int}
    for key, kind in kinds.items():
        if not isinstance(row.get(key), kind):
            whole = f" (each line needs {', '.join(kinds)})"
            raise ValueError(f"{key!r} is missing{whole}" if key not in row else f"{key!r} is not {kind.__name__}")
    answer = _ANSWER.search(row["solution"])
    if answer is None:
        raise ValueError("'solution' does not end in 'Answer: <integer>'")
    setting, mode = TEMPLATES.get(str(row.get("template"))), PUBLISHED_MODES.get(str(row.get("mode")))
    return Record(row["question"].strip(), row["problem"].strip(), int(answer[1]), row["op"], setting, mode)
