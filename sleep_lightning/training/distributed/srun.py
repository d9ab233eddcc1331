"""The processes that ``srun`` started together, from the environment of each; and Lightning's view of them."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from sleep_lightning.config import TrainingConfig

FIRST_PORT, PORTS = 10_000, 20_000
"""Where rank zero listens: below the ports that Linux hands out, another one for each step of a job."""
_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?")


@dataclass(frozen=True)
class SrunStep:
    """This process among those of its ``srun``.

    Attributes:
        rank: global rank, from 0.
        local_rank: rank on its node.
        tasks: number of tasks on each node.
        nodes: the node list, as SLURM writes it.
        environment: of this process.
    """

    rank: int
    local_rank: int
    tasks: tuple[int, ...]
    nodes: str
    environment: Mapping[str, str]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "SrunStep | None":
        """None outside ``srun`` (in a job's script, for example), and for a single task, which is as if started
        alone."""
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
            return None
        counts = _COUNT.findall(environment["SLURM_STEP_TASKS_PER_NODE"])  # "2(x3),1"
        tasks = tuple(int(count) for count, times in counts for _ in range(int(times or 1)))
        rank, local_rank = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
        return cls(rank, local_rank, tasks, environment["SLURM_STEP_NODELIST"], environment)

    @property
    def size(self) -> int:
        """World size."""
        return sum(self.tasks)

    def check(self, training: TrainingConfig) -> None:
        """Raise ValueError, in all ranks, if the tasks are not those that the configuration asks for."""
        if self.tasks == (training.devices,) * training.num_nodes:
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
        """Host of rank zero: MASTER_ADDR, or the step's first node. Raises ValueError if it cannot be found out."""
        if "MASTER_ADDR" in self.environment:
            return self.environment["MASTER_ADDR"]
        if len(self.tasks) == 1:
            return "127.0.0.1"
        command = ["scontrol", "show", "hostnames", self.nodes]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise ValueError(
                f"MASTER_ADDR is not set and SLURM does not report the first host of {self.nodes} ({error}); export "
                f"MASTER_ADDR=<host of the first task>"
            ) from error
        return done.stdout.split()[0]

    def port(self) -> int:
        """Port of rank zero: MASTER_PORT, or one derived from the ids of the job and the step."""
        if "MASTER_PORT" in self.environment:
            return int(self.environment["MASTER_PORT"])
        job, step = (int(self.environment.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        return FIRST_PORT + (37 * job + step) % PORTS


class SrunEnvironment(SLURMEnvironment):
    """Lightning's SLURM environment for the *step* that ``srun`` started, not for the job around it.

    Lightning's own takes a job's script without ``srun`` for a rank, derives one port for all steps of a job, and
    requeues from a signal handler that runs a collective, which deadlocks under DDP. ``Preemption`` requeues here.
    """

    def __init__(self, step: SrunStep) -> None:
        super().__init__(auto_requeue=False)
        self._step = step

    @staticmethod
    def _validate_srun_variables() -> None:
        """``srun --ntasks`` without ``--ntasks-per-node`` is fine: the step's own task counts are read."""

    @property
    def main_address(self) -> str:
        return self._step.address()

    @property
    def main_port(self) -> int:
        return self._step.port()

    def world_size(self) -> int:
        return self._step.size

    def global_rank(self) -> int:
        return self._step.rank

    def local_rank(self) -> int:
        return self._step.local_rank

    def node_rank(self) -> int:
        return int(os.environ.get("SLURM_NODEID", 0))

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        self._step.check(TrainingConfig(batch_size=num_devices * num_nodes, devices=num_devices, num_nodes=num_nodes))
