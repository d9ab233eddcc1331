"""The keys of a sweep's YAML: what varies, the objectives, the budget."""

from dataclasses import dataclass, field
from typing import Literal

from sleep_lightning.sweep.launchers import RayOptions, SlurmOptions
from sleep_lightning.sweep.space import Parameter
from sleep_lightning.sweep.storage import check_url


@dataclass
class Budget:
    trials: int = field(default=30, metadata={"high": 2**31 - 1})
    """Finished or pruned trials; failed and infeasible ones are replaced."""
    flops: float | None = None
    """Training FLOPs of all trials, failed ones included; null: no limit."""
    hours: float | None = None
    """Wall time in hours; null: no limit."""


@dataclass
class Reseed:
    seeds: int = field(default=0, metadata={"low": 0, "high": 2**16})
    """Most seeds of a point, those of the sweep included; 0: none are added."""
    confidence: float = field(default=0.95, metadata={"low": 0.5, "high": 1})
    """A point is decided if it is on the frontier, or off it, in this share of the resamples of the seeds."""
    flops: float | None = None
    """Training FLOPs of all further seeds; null: no limit of their own."""


@dataclass
class SweepSpec:
    name: str
    """Name of the sweep, its study and its MLflow parent run."""
    base: str
    """Experiment YAML that the points change; relative to the spec's folder."""
    space: dict[str, Parameter]
    """Keys that vary. arm: arms of compare, each a change of the base with the other values. train_flops: budgets
    of training FLOPs; max_steps is what they buy."""
    overrides: list[str] = field(default_factory=list)
    """key=value changes for all points."""
    objectives: dict[str, str] = field(default_factory=lambda: {"exact_match": "maximize", "train_flops": "minimize"})
    """Measures and their directions, maximize or minimize: exact_match, token_accuracy, loss, train_flops, wall_s,
    tokens_per_s, peak_memory_bytes, energy_j, or any logged metric by its whole name (val/hop_3/exact_match)."""
    sampler: Literal["tpe", "nsga2", "gp", "qmc", "random", "grid"] = "tpe"
    """Optuna's sampler, which proposes points."""
    sampler_seed: int = field(default=0, metadata={"low": 0, "high": 2**31 - 1})
    """Seed of the sampler."""
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"low": 0, "high": 2**32 - 1})
    """Training seeds of every trial, a run for each; the result of the trial is their mean."""
    budget: Budget = field(default_factory=Budget)
    """When to stop."""
    reseed: Reseed = field(default_factory=Reseed)
    """Once no more points are tried: further seeds for those that decide the frontier."""
    constraints: dict[str, float] = field(default_factory=dict)
    """Upper bounds. A point above one that is known before step 0 (state_bytes, wake_flops_per_token,
    sleep_flops_per_window, train_flops) is not run; a trial above one on a measure counts, but not for the frontier."""
    pruner: Literal["none", "median", "frontier"] = "frontier"
    """Which trials are stopped early, by exact match over training FLOPs, so none with objectives of another kind; a
    difference within the standard error of a validation stops none."""
    workers: int = field(default=1, metadata={"high": 4096})
    """Runs at a time, each of another trial; with pruner: none also other seeds, once no trial is left to start."""
    threads: int = field(default=1, metadata={"high": 4096})
    """CPU threads of each run."""
    devices: list[int] | None = field(default=None, metadata={"high": 4096})
    """Indices of visible GPUs, from 0: each run sees one, that with the fewest runs; with more workers than GPUs, runs
    share them. null: no GPU is assigned, a run sees the same GPUs as the sweep."""
    retries: int = field(default=1, metadata={"high": 2**31 - 1})
    """How often a failed run is resumed from its last checkpoint. Failures after progress since the last start do not
    count, nor do those of the machine (a full disk, no memory, a lost node), which are waited for."""
    storage: str | None = None
    """Where trials are kept: null, a journal in the sweep's folder; postgresql+psycopg://user@host/database, its
    password in PGPASSWORD or ~/.pgpass; or sqlite:///file.db."""
    launcher: Literal["local", "slurm", "ray"] = "local"
    """Where runs are trained: as processes of this machine, as SLURM jobs, or on a Ray cluster (docs/ray.md)."""
    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    """What a SLURM job asks for."""
    ray: RayOptions = field(default_factory=RayOptions)
    """The Ray cluster, and what a run asks of it."""

    def __post_init__(self) -> None:
        if self.storage is not None:
            self.storage = check_url(self.storage)
        for name, direction in self.objectives.items():
            if direction not in ("maximize", "minimize"):
                raise ValueError(f"objectives.{name}={direction!r} must be maximize or minimize")
        if not self.objectives:
            raise ValueError("objectives is empty; use {exact_match: maximize, train_flops: minimize}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds={self.seeds} must be different numbers from 0")
        if (gpus := self.devices) is not None and (not gpus or len(set(gpus)) < len(gpus) or min(gpus) < 0):
            raise ValueError(f"devices={gpus} must be different numbers from 0, or null")
        if gpus is not None and self.launcher != "local":
            raise ValueError(f"devices={gpus} is for launcher: local; set slurm.gpus_per_node or ray.num_gpus instead")
        counts = {"workers": self.workers, "threads": self.threads, "budget.trials": self.budget.trials}
        for key, value in counts.items():
            if value < 1:
                raise ValueError(f"{key}={value} must be at least 1")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries} must be at least 0")
        budgets = {"budget.flops": self.budget.flops, "budget.hours": self.budget.hours}
        for key, bound in (budgets | {"reseed.flops": self.reseed.flops}).items():
            if bound is not None and not bound > 0:
                raise ValueError(f"{key}={bound} must be above 0, or null")
