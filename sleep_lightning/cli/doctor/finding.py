"""What a check finds, and how checks are run so that none of them can end in a traceback."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sleep_lightning import redaction

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """A row of the table: what was looked at, the facts, and what to do ("": nothing).

    ``error``: something will not run; ``warning``: it runs, but slower or worse than it could.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Sequence[tuple[str, Check]], begins: Callable[[str], None] = lambda name: None) -> list[Finding]:
    """The findings of all checks, in order; a check that raises becomes an error with its reason."""
    findings: list[Finding] = []
    for name, check in checks:
        begins(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                findings += check()
        except Exception as error:  # whatever is broken here, the other checks must run
            missing = isinstance(error, ImportError)
            remedy = "python -m pip install -e . (in the checkout)" if missing else "repair what the reason names"
            findings.append(Finding(name, "error", one_line(error), remedy))
    return findings


def one_line(error: Exception) -> str:
    """An error's type and text, without line breaks and secrets, and no longer than a row can be."""
    return f"{type(error).__name__}: {redaction.one_line(error)}"
