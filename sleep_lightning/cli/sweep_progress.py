"""Live progress of a sweep: a view on a terminal; on a pipe or in a log file, lines."""

import time
from collections.abc import Callable
from contextlib import closing, nullcontext

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sleep_lightning.cli.sweep_view import Pace, SweepView
from sleep_lightning.lines import print_line
from sleep_lightning.sweep.supervisor import Supervisor

VIEW_SECONDS, STATUS_SECONDS = 1.0, 60.0
"""Shortest time between two views on a terminal, and between two status lines in a log."""


def watch(supervisor: Supervisor, console: Console, happened: Callable[[], None]) -> None:
    """Run a sweep to the end of its budget and show it.

    Args:
        supervisor: of the sweep.
        console: where to show it.
        happened: called after events (trials that ended or resumed) were printed.
    """
    view, live = SweepView(supervisor.sweep), _live(console)
    began = shown = time.monotonic()
    spent_before: float | None = None
    with live or nullcontext(), closing(supervisor.run()) as looks:
        for _ in looks:
            events, at = _taken(supervisor.events), time.monotonic()
            due = at - shown >= (STATUS_SECONDS if live is None else VIEW_SECONDS)
            if spent_before is not None and not events and not due:
                continue
            now = supervisor.snapshot()
            spent_before = now.flops_spent if spent_before is None else spent_before
            pace = Pace(at - began, max(0.0, now.flops_spent - spent_before))
            for event in events:
                _say(console, event)
            if events:
                happened()
            if live is not None:
                live.update(view.draw(now, pace, console), refresh=True)
            elif due:
                _say(console, view.status(now, pace))
            shown = at if due or live is not None else shown


def _live(console: Console) -> Live | None:
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    return Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)


def _taken(events: list[str]) -> list[str]:
    """All of them, which are removed."""
    taken = events[:]
    del events[: len(taken)]
    return taken


def _say(console: Console, text: str) -> None:
    """A line. What came out of a log may hold control characters: a terminal must not obey them."""
    plain = Text.from_ansi(" ".join(text.splitlines())).plain
    print_line(console, "".join(c for c in plain if c.isprintable()))
