"""What a run asks of a Ray cluster."""

import re
from dataclasses import dataclass, field
from typing import Any

from sleep_lightning.config import TrainingConfig

OWN_KEYS = {"CPU": "num_cpus", "GPU": "num_gpus"}
"""Ray's resources that have a key of their own here."""


@dataclass
class RayOptions:
    address: str = "auto"
    """Address of the cluster: auto (that of this machine, or RAY_ADDRESS) or host:port of its head."""
    num_cpus: float | None = field(default=None, metadata={"high": 2**16})
    """CPUs of a run; null: threads x training.devices."""
    num_gpus: float = field(default=0, metadata={"high": 2**16})
    """GPUs of a run; it sees these only. Below 1: runs share a GPU."""
    resources: dict[str, float] = field(default_factory=dict)
    """Custom resources of a run, by name, as given to ray start --resources."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    """Ray's runtime environment of the runs, for example {env_vars: {HF_HOME: /scratch/hf}}."""

    def __post_init__(self) -> None:
        if self.address != "auto" and not re.fullmatch(r"(\[[\da-fA-F:]+\]|[\w.-]+):\d{1,5}", self.address):
            raise ValueError(
                f"ray.address={self.address!r} is neither auto nor host:port of the cluster's head; run the sweep on a "
                f"node of the cluster with ray.address=auto"
            )
        for key in ("num_cpus", "num_gpus"):
            if (value := getattr(self, key)) is not None and not value >= 0:
                raise ValueError(f"ray.{key}={value} must be at least 0")
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"ray.num_gpus={self.num_gpus} must be a whole number, or below 1 to share a GPU")
        for name, amount in self.resources.items():
            if name in OWN_KEYS:
                raise ValueError(f"ray.resources.{name}={amount} is set by ray.{OWN_KEYS[name]}; use that")
            if not amount > 0:
                raise ValueError(f"ray.resources.{name}={amount} must be above 0")

    def check(self, training: TrainingConfig) -> None:
        """Raises ValueError if such an experiment cannot be trained on one node with these resources."""
        if training.num_nodes > 1:
            raise ValueError(
                f"launcher=ray trains a run on one node, not on training.num_nodes={training.num_nodes}; set "
                f"training.num_nodes=1, or launcher: slurm"
            )
        if 0 < self.num_gpus < training.devices:
            raise ValueError(
                f"training.devices={training.devices} does not fit ray.num_gpus={self.num_gpus:g}; set "
                f"ray.num_gpus={training.devices}"
            )

    def demands(self, threads: int, devices: int) -> dict[str, float]:
        """What a run of so many devices takes of a node, by Ray's names of resources."""
        cpus = threads * devices if self.num_cpus is None else self.num_cpus
        return {"CPU": cpus, "GPU": self.num_gpus} | self.resources
