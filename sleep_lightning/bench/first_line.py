"""How long each command is silent on a terminal, and how long it takes in all."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

SPEC = """\
name: first
base: experiment.yaml
space: {sleep.n_passes: {choices: [1, 2]}}
budget: {trials: 2}
"""
_NOWHERE = ["--checkpoint", "nowhere"]
COMMANDS: tuple[Sequence[str], ...] = (
    ["--help"],
    ["fit", "--config", "experiment.yaml", "tracking.enabled=false"],
    *(["validate", *_NOWHERE], ["test", *_NOWHERE], ["predict", *_NOWHERE]),
    ["compare", "experiment.yaml", "--arms", "nothing"],
    ["sweep", "list"],
    ["sweep", "show", "nothing"],
    ["sweep", "sweep.yaml", "--dry-run"],
    ["reproduce", "--page-only"],
    ["cost", "--config", "experiment.yaml"],
    ["plan", "--config", "experiment.yaml", "--passes", "1"],
    ["config", "--config", "experiment.yaml"],
    ["export", *_NOWHERE, "--output", "nothing"],
    *(["chat", *_NOWHERE], ["serve", *_NOWHERE]),
    ["tracking", "sync", "nowhere"],
    ["bench", "--help"],
    ["doctor", "--help"],
    ["help", "sleep.n_passes"],
    ["completion", "bash"],
)
"""Every command with little to do; where a word is ``nothing`` or ``nowhere``, until it is refused."""


def bench_first_lines(
    experiment: str, rounds: int, commands: Sequence[Sequence[str]] = COMMANDS
) -> Iterator[dict[str, object]]:
    """A row a command: seconds to the first character on a terminal, and to the end; medians.

    Args:
        experiment: as YAML, trained by ``fit``.
        rounds: runs of each command.
        commands: which.
    """
    for words in commands:
        times = []
        for _ in range(rounds):
            with TemporaryDirectory() as folder:
                Path(folder, "experiment.yaml").write_text(experiment)
                Path(folder, "sweep.yaml").write_text(SPEC)
                times.append(first_output([sys.executable, "-m", "sleep_lightning", *words], folder))
        yield {
            "what": "first line of a command",
            "shape": "on a terminal",
            "contender": " ".join(words),
            "first_line_s": median(first for first, _ in times),
            "end_s": median(end for _, end in times),
            "rounds": rounds,
        }


def first_output(command: Sequence[str], folder: str) -> tuple[float, float]:
    """Seconds until a command has written something to its terminal, and until it has ended."""
    ours, its = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=its, stderr=its) as process:
        os.close(its)
        first: float | None = None
        with suppress(OSError):  # Linux says so when the other side is closed
            while os.read(ours, 2**16):
                first = first or time.perf_counter() - began
        process.wait()
    os.close(ours)
    end = time.perf_counter() - began
    return end if first is None else first, end
