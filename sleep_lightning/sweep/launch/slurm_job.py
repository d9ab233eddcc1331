"""What a SLURM job of a run is: its options, and the script that trains the run wherever it starts."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAVE_SECONDS = 120
"""A job is told so long before its time is out: it saves, and is submitted again."""
OURS = (
    "array", "chdir", "cpus-per-task", "error", "export", "export-file", "gpus-per-node", "hold", "job-name", "nodes",
    "ntasks", "open-mode", "output", "parsable", "partition", "requeue", "no-requeue", "signal", "test-only",
    "time", "wait", "wrap",
)  # fmt: skip
"""Options of sbatch that are not for ``extra``."""
_OPTION = re.compile(r"--([a-z][a-z-]*)(=[^\x00-\x1f\x7f]+)?")


@dataclass
class SlurmOptions:
    partition: str | None = None
    """Partition of the jobs; null: the cluster's default."""
    time_limit: int | None = None
    """Minutes of a job; a run that takes longer saves and goes on in another job. null: the partition's limit."""
    nodes: int = 1
    """Nodes of a trial."""
    tasks: int = 1
    """Processes of a trial, over all its nodes; more than one are started by srun."""
    gpus_per_node: int = 0
    """GPUs of a trial on each of its nodes."""
    cpus: int | None = None
    """CPUs of each process; null: as many as threads."""
    extra: list[str] = field(default_factory=list)
    """More options of sbatch, as --key=value."""
    setup: list[str] = field(default_factory=list)
    """Lines of bash before the trial begins, for example [module load cuda]."""
    poll_seconds: float = 5.0
    """Between two questions to SLURM about a job."""
    settle_seconds: float = 10.0
    """How long after a job's end a shared file system may take to show its result."""

    def __post_init__(self) -> None:
        at_least = {"time_limit": 1, "nodes": 1, "tasks": 1, "gpus_per_node": 0, "cpus": 1, "settle_seconds": 0}
        for key, low in at_least.items():
            if (value := getattr(self, key)) is not None and value < low:
                raise ValueError(f"slurm.{key}={value} must be at least {low}")
        if self.poll_seconds <= 0:
            raise ValueError(f"slurm.poll_seconds={self.poll_seconds} must be above 0; try 5")
        if self.tasks < self.nodes:
            raise ValueError(f"slurm.tasks={self.tasks} leaves some of slurm.nodes={self.nodes} idle; use more tasks")
        if self.partition is not None and not re.fullmatch(r"[\w.,-]+", self.partition):
            raise ValueError(f"slurm.partition={self.partition!r} is no name of a partition")
        for option in self.extra:
            if (match := _OPTION.fullmatch(option)) is None:
                raise ValueError(f"slurm.extra: {option!r} is not --key=value; write for example --account=me")
            if match[1] in OURS:
                raise ValueError(f"slurm.extra: {option!r} is set by the sweep itself, or by another key of slurm")
        for line in self.setup:
            if "\n" in line or "\x00" in line:
                raise ValueError(f"slurm.setup: {line!r} is more than one line; give each as an item of its own")

    def arguments(self, threads: int) -> list[str]:
        """What a job asks for, as options of sbatch."""
        asked = [f"--nodes={self.nodes}", f"--ntasks={self.tasks}", f"--cpus-per-task={self.cpus or threads}"]
        if self.gpus_per_node:
            asked.append(f"--gpus-per-node={self.gpus_per_node}")
        if self.partition is not None:
            asked.append(f"--partition={self.partition}")
        if self.time_limit is not None:
            ahead = min(SAVE_SECONDS, 15 * self.time_limit)
            asked += [f"--time={self.time_limit}", f"--signal=B:TERM@{ahead}"]
        return [*asked, *self.extra]

    def script(self, begin: Sequence[str], resume: Sequence[str], config: Path, ticket: Path, token: str) -> str:
        """The job's script.

        A job that SLURM starts again goes on from the checkpoint; one that nobody waits for any more (a supervisor
        died as it submitted it) does nothing. The run takes the place of bash, so that signals reach it.

        Args:
            begin: command of a run that has not begun.
            resume: of one that has.
            config: the file whose being there tells which.
            ticket: the file that holds the token while the job is wanted.
            token: the job's.
        """
        launch = ["exec", "srun", "--kill-on-bad-exit=1"] if self.tasks > 1 else ["exec"]
        lines = ["#!/bin/bash", f"grep -qs {shlex.quote(token)} {shlex.quote(str(ticket))} || exit 0", *self.setup]
        if self.tasks == 1:  # Lightning would take the variables of the job for those of a launch by srun
            lines.append("unset ${!SLURM_@}")
        lines.append(f"if [ -e {shlex.quote(str(config))} ]; then {shlex.join([*launch, *resume])}; fi")
        return "\n".join([*lines, shlex.join([*launch, *begin]), ""])
