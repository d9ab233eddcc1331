"""How many CPU threads a rank computes with. A setting of the process, so chosen once, by the command."""

import os

import torch

from sleep_lightning.machine.cores import cores
from sleep_lightning.training.distributed.srun import SrunStep


def choose_threads(threads: int | None = None, ranks: int = 1) -> int:
    """Set this process's threads, and return their number.

    Args:
        threads: as configured. None: OMP_NUM_THREADS; without it torch's default for one rank, and for several the
            cores divided among them, never more than the cores that this process may use.
        ranks: on this node.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        most = _share(ranks)
        if ranks > 1 or torch.get_num_threads() > most:
            torch.set_num_threads(most)
    return torch.get_num_threads()


def _share(ranks: int) -> int:
    """Cores of each rank: those that srun gave each task of its own, else an equal share."""
    here = cores()
    if ranks > 1 and SrunStep.of(os.environ) is not None and (own := os.environ.get("SLURM_CPUS_PER_TASK")):
        return max(1, min(here, int(own)))
    return max(1, here // ranks)
