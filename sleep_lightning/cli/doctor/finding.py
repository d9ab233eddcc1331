"""What a check finds, and how checks are run so that none of them can end in a traceback."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """A row of the table.

    Attributes:
        check: what was looked at.
        state: ``error``: something will not run; ``warning``: it runs, but slower or worse than it could.
        found: the facts.
        remedy: what to do, a command or a key; "" where there is nothing to do.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Sequence[tuple[str, Check]], begins: Callable[[str], None] = lambda name: None) -> list[Finding]:
    """The findings of all checks, in order; a check that raises is an error with its reason.

    Args:
        checks: name and function.
        begins: is told the name of each check before it runs.
    """
    findings: list[Finding] = []
    for name, check in checks:
        begins(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                findings += check()
        except Exception as error:  # whatever is broken here, the other checks must run
            findings.append(Finding(name, "error", one_line(error), _remedy(error)))
    return findings


def one_line(error: Exception) -> str:
    """An error's type and text, without line breaks and not longer than a row can be."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _remedy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "python -m pip install -e . (in the checkout)"
    if isinstance(error, ImportError):
        return "install what the reason names again: python -m pip install --force-reinstall PACKAGE"
    return "the check itself failed; repair what the reason names, then run doctor again"
