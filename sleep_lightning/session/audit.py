"""Who did what with a memory: a line for every read, write, inspection, reset and export."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from sleep_lightning.machine.locks import open_private

Action = Literal["read", "write", "inspect", "reset", "export"]


@dataclass(frozen=True)
class AuditLine:
    """One use of a session, told before it happens. It holds no text.

    Attributes:
        time: in seconds since 1970.
        session: the session's identifier.
        action: of what kind; ``read``: the memory was asked; ``write``: something may have gone into it; ``export``: a
            copy of it was made.
        method: of ``SleepSession``.
        detail: numbers of tokens and passes, source labels, paths.
    """

    time: float
    session: str
    action: Action
    method: str
    detail: dict[str, Any] = field(default_factory=dict)


Audit = Callable[[AuditLine], None]


class AuditFile:
    """Appends each line as JSON to a file, for its owner alone.

    Args:
        path: of the file.

    Raises:
        OSError: a line could not be written; what it tells of then does not happen.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)

    def __call__(self, line: AuditLine) -> None:
        content = (json.dumps(asdict(line)) + "\n").encode()
        file = open_private(self.path)
        try:
            if os.write(file, content) < len(content):
                raise OSError(f"{self.path}: a line of the audit could not be written")
        finally:
            os.close(file)


def audit_of(sink: Audit | str | PathLike[str] | None) -> Audit | None:
    """The function behind what a caller gives: a function, a path, or nothing."""
    return AuditFile(sink) if isinstance(sink, str | PathLike) else sink
