"""The SLURM job of a run: its options and its script."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sleep_lightning.config import TrainingConfig

SAVE_SECONDS = 120
"""Before its time limit a job is signalled, saves, and is submitted again."""
OURS = (
    "array", "chdir", "cpus-per-task", "error", "export", "export-file", "gpus-per-node", "hold", "job-name", "nodes",
    "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition", "requeue", "no-requeue", "signal",
    "test-only", "time", "wait", "wrap",
)  # fmt: skip
"""Options of sbatch that ``extra`` may not set."""
_OPTION = re.compile(r"--([a-z][a-z-]*)(=[^\x00-\x1f\x7f]+)?")


@dataclass
class SlurmOptions:
    partition: str | None = None
    """Partition of the jobs; null: the cluster's default."""
    time_limit: int | None = field(default=None, metadata={"high": 2**31 - 1})
    """Minutes of a job; a run that takes longer saves and resumes in another job. null: the partition's limit."""
    nodes: int = field(default=1, metadata={"high": 2**16})
    """Nodes of a trial."""
    tasks: int = field(default=1, metadata={"high": 2**16})
    """Processes of a trial, over all its nodes (training.devices x training.num_nodes); more than one by srun."""
    gpus_per_node: int = field(default=0, metadata={"high": 4096})
    """GPUs of a trial on each of its nodes."""
    cpus: int | None = field(default=None, metadata={"high": 4096})
    """CPUs of each process; null: as many as threads."""
    extra: list[str] = field(default_factory=list)
    """More options of sbatch, as --key=value."""
    setup: list[str] = field(default_factory=list)
    """Lines of bash before the trial begins, for example [module load cuda]."""
    poll_seconds: float = field(default=5.0, metadata={"high": 1e6})
    """Seconds between two queries of a job's state."""
    settle_seconds: float = field(default=10.0, metadata={"high": 1e6})
    """Seconds after a job's end within which a shared file system shows its result."""

    def __post_init__(self) -> None:
        at_least = {"time_limit": 1, "nodes": 1, "tasks": 1, "gpus_per_node": 0, "cpus": 1, "settle_seconds": 0}
        for key, low in at_least.items():
            if (value := getattr(self, key)) is not None and value < low:
                raise ValueError(f"slurm.{key}={value} must be at least {low}")
        if self.poll_seconds <= 0:
            raise ValueError(f"slurm.poll_seconds={self.poll_seconds} must be above 0; try 5")
        if self.tasks < self.nodes:
            raise ValueError(f"slurm.tasks={self.tasks} leaves some of slurm.nodes={self.nodes} idle; use more tasks")
        if self.tasks % self.nodes:
            raise ValueError(
                f"slurm.tasks={self.tasks} does not divide over slurm.nodes={self.nodes}; use a multiple of it"
            )
        if self.partition is not None and not re.fullmatch(r"[\w.,-]+", self.partition):
            raise ValueError(f"slurm.partition={self.partition!r} is not a name of a partition")
        for option in self.extra:
            if (match := _OPTION.fullmatch(option)) is None:
                raise ValueError(f"slurm.extra: {option!r} is not --key=value; write for example --account=me")
            if match[1] in OURS:
                raise ValueError(f"slurm.extra: {option!r} is set by the sweep itself, or by another key of slurm")
        for line in self.setup:
            if "\n" in line or "\x00" in line:
                raise ValueError(f"slurm.setup: {line!r} is more than one line; give each as an item of its own")

    def check(self, training: TrainingConfig) -> None:
        """Raises ValueError if the tasks do not match the processes of the experiment."""
        on_a_node = self.tasks // self.nodes
        if (self.nodes, on_a_node) != (training.num_nodes, training.devices if self.tasks > 1 else 1):
            raise ValueError(
                f"slurm.nodes={self.nodes} with slurm.tasks={self.tasks} do not start training.devices="
                f"{training.devices} x training.num_nodes={training.num_nodes} processes; set slurm.nodes="
                f"{training.num_nodes} and slurm.tasks={training.processes}"
            )

    def arguments(self, threads: int) -> list[str]:
        """Options of sbatch for a job."""
        asked = [f"--nodes={self.nodes}", f"--ntasks={self.tasks}", f"--cpus-per-task={self.cpus or threads}"]
        if self.nodes > 1:  # else SLURM may put more on one than on another
            asked.append(f"--ntasks-per-node={self.tasks // self.nodes}")
        if self.gpus_per_node:
            asked.append(f"--gpus-per-node={self.gpus_per_node}")
        if self.partition is not None:
            asked.append(f"--partition={self.partition}")
        if self.time_limit is not None:
            ahead = min(SAVE_SECONDS, 15 * self.time_limit)
            term = "B:TERM" if self.tasks == 1 else "TERM"  # srun, in the place of bash, would kill its tasks
            asked += [f"--time={self.time_limit}", f"--signal={term}@{ahead}"]
        return [*asked, *self.extra]

    def script(self, begin: Sequence[str], resume: Sequence[str], config: Path, ticket: Path, token: str) -> str:
        """The job's script.

        A requeued job resumes from the checkpoint; a job that is no longer wanted (its supervisor died while it
        submitted it) does nothing. The run replaces bash (exec), so that signals reach it.

        Args:
            begin: command that starts the run.
            resume: command that resumes it.
            config: the file whose existence decides which.
            ticket: the file that holds the token while the job is wanted.
            token: the job's.
        """
        launch = ["exec", "srun", "--kill-on-bad-exit=1"] if self.tasks > 1 else ["exec"]
        lines = ["#!/bin/bash", f"grep -qs {shlex.quote(token)} {shlex.quote(str(ticket))} || exit 0", *self.setup]
        if self.tasks > 1:  # srun does not ask for as many CPUs as sbatch did
            lines.append('export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
        if self.tasks == 1:  # Lightning would take the variables of the job for those of a launch by srun
            lines.append("unset ${!SLURM_@}")
        lines.append(f"if [ -e {shlex.quote(str(config))} ]; then {shlex.join([*launch, *resume])}; fi")
        return "\n".join([*lines, shlex.join([*launch, *begin]), ""])
