"""Kills at random moments, and others' files: how many is said by CHAOS_KILLS; the figures are printed at the end.

``make test-chaos`` runs the full suite; with the others a short one of the same seeds runs.
"""

import os
from collections.abc import Callable

import pytest

KILLS = int(os.environ.get("CHAOS_KILLS", "2"))
Figures = Callable[..., None]


@pytest.fixture
def kills() -> int:
    """Kills of each kind of process."""
    return KILLS


@pytest.fixture
def figures(record_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Figures:
    """Called with what was counted, by name."""

    def note(**counted: int) -> None:
        text = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counted.items())
        record_property("chaos", f"{request.node.name}: {text}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.stats.get(outcome, [])]
    lines = [text for one in reports for name, text in one.user_properties if name == "chaos"]
    if lines:
        terminalreporter.section("chaos")
        for line in lines:
            terminalreporter.write_line(line)
