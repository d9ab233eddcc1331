"""The processes that ``srun`` started together, as the environment of each tells them."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from sleep_lightning.config import TrainingConfig

FIRST_PORT, PORTS = 10_000, 20_000
"""Where the first process listens: below those that Linux hands out, another port for each step of a job."""
_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?")


@dataclass(frozen=True)
class SlurmStep:
    """This process among those of its ``srun``.

    Attributes:
        rank: its number, from 0.
        local_rank: its number on its node.
        tasks: how many are on each node.
        nodes: the nodes, as SLURM writes them.
        environment: of this process.
    """

    rank: int
    local_rank: int
    tasks: tuple[int, ...]
    nodes: str
    environment: Mapping[str, str]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "SlurmStep | None":
        """None outside ``srun``, in the script of a job for example; and for one task, which is as if started alone."""
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
            return None
        counts = _COUNT.findall(environment["SLURM_STEP_TASKS_PER_NODE"])  # "2(x3),1"
        tasks = tuple(int(count) for count, times in counts for _ in range(int(times or 1)))
        rank, local_rank = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
        return cls(rank, local_rank, tasks, environment["SLURM_STEP_NODELIST"], environment)

    @property
    def size(self) -> int:
        """How many processes they are."""
        return sum(self.tasks)

    def check(self, training: TrainingConfig) -> None:
        """Raises ValueError, in all of them, if they are others than the configuration wants."""
        wanted = (training.devices,) * training.num_nodes
        if self.tasks == wanted:
            return
        nodes = len(self.tasks)
        fix = f"srun --nodes={training.num_nodes} --ntasks-per-node={training.devices}"
        if len(set(self.tasks)) == 1:
            fix = f"training.devices={self.tasks[0]} training.num_nodes={nodes}, or {fix}"
        raise ValueError(
            f"training.devices={training.devices} x training.num_nodes={training.num_nodes} but srun started "
            f"{self.size} tasks on {nodes} node{'s' * (nodes > 1)} ({', '.join(map(str, self.tasks))}); use {fix}"
        )

    def address(self) -> str:
        """Host of the first process: MASTER_ADDR, or the first node. Raises ValueError if nobody knows it."""
        if "MASTER_ADDR" in self.environment:
            return self.environment["MASTER_ADDR"]
        if len(self.tasks) == 1:
            return "127.0.0.1"
        command = ["scontrol", "show", "hostnames", self.nodes]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise ValueError(
                f"MASTER_ADDR is not set and SLURM does not tell the first host of {self.nodes} ({error}); export "
                f"MASTER_ADDR=<host of the first task>"
            ) from error
        return done.stdout.split()[0]

    def port(self) -> int:
        """Port of the first process: MASTER_PORT, or one by the numbers of the job and the step."""
        if "MASTER_PORT" in self.environment:
            return int(self.environment["MASTER_PORT"])
        job, step = (int(self.environment.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        return FIRST_PORT + (37 * job + step) % PORTS
