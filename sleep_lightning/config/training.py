"""How a model is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sleep_lightning.model.parameter_groups import Trained
from sleep_lightning.names import check_path
from sleep_lightning.sleep import Checkpointing, Eviction
from sleep_lightning.sleep.config import MOST_PASSES
from sleep_lightning.sleep.layerwise import Executor


@dataclass
class Stage:
    """A stage at the beginning of training."""

    steps: int = field(metadata={"high": 2**53})
    """Optimizer steps of the stage."""
    train: Trained = "all"
    """What learns: as training.train."""
    eviction: Eviction | None = None
    """Eviction during the stage; null: sleep.eviction."""
    n_passes: int | None = field(default=None, metadata={"high": MOST_PASSES})
    """N during the stage (a curriculum); null: sleep.n_passes, or drawn from sampled_passes."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"training.stages: steps={self.steps} must be at least 1")
        if self.n_passes is not None and self.n_passes < 1:
            raise ValueError(f"training.stages: n_passes={self.n_passes} must be at least 1, or null")


@dataclass
class TrainingConfig:
    """Section ``training``. Raises ValueError for values out of range or that do not go together."""

    max_steps: int = field(default=1000, metadata={"high": 2**53})
    """Optimizer steps."""
    batch_size: int = field(default=64, metadata={"high": 2**24})
    """Sequences of an optimizer step, over all processes and micro-batches."""
    accumulate: int = field(default=1, metadata={"high": 2**24})
    """Micro-batches of an optimizer step; divides batch_size."""
    stages: list[Stage] = field(default_factory=list, metadata={"high": 2**53})
    """Initial stages, for example [{steps: 500, train: memory, eviction: hard}] or [{steps: 200, n_passes: 1}]; after
    them, as configured."""
    train: Trained = "all"
    """What learns after the stages: everything (with model.lora its adapters and the memory); memory: only the mixers
    that hold fast weights and the norms in front of them; after_prelude: all but the embedding (and a head tied to it)
    and the blocks in front of the loop (sleep.loop)."""
    sampled_passes: list[int] = field(default_factory=list, metadata={"high": MOST_PASSES})
    """N of each step, drawn uniformly from these; empty: sleep.n_passes. Validation always uses sleep.n_passes."""
    seed: int = field(default=0, metadata={"low": 0, "high": 2**32 - 1})
    """Seed of the initial weights and of the data stream."""
    unique_sequences: int | None = field(default=None, metadata={"high": 2**24})
    """Train on this many sequences again and again, in a new order each time; null: every sequence is new."""
    tbptt_windows: int | None = field(default=None, metadata={"high": 2**53})
    """k: detach the memory every k windows; null: backpropagate through the whole sequence (the paper)."""
    checkpointing: Checkpointing = "none"
    """Recompute activations in the backward instead of keeping them. mlp: the MLPs' projections, nearly half the memory
    for a tenth more time; pass: all but a pass's inputs, a sixth of the memory for 1.4 times the time; window: all
    passes of a window together."""
    executor: Executor = "auto"
    """auto runs all windows layer by layer where the result is the same (N=1, pass_input=embed); windows never does."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward: fp32, or bf16 autocast. The memory stays fp32."""
    fp32_matmul: Literal["auto", "torch", "tf32"] = "auto"
    """auto uses oneDNN for fp32 products where a probe shows that they stay fp32; torch leaves it to torch; tf32
    uses the tensor cores of a GPU, with the precision of TF32."""
    allocator: Literal["keep", "return", "libc"] = "keep"
    """What glibc does with freed memory: keep for the next step (fast), return (smallest peak), or its default."""
    compile: bool = False
    """torch.compile one pass: worth it on long runs (the first step takes minutes on two cores)."""
    cuda_graph: bool = False
    """Run forward and backward as one CUDA graph: many times faster on short windows; CUDA only."""
    optimizer: Any = "muon_adamw"
    """Optimizer: muon_adamw, or {class_path: torch.optim.SGD, init_args: {lr: 0.1}}. It is given the model's
    parameters, or the model if its first argument is named model."""
    schedule: Any = "warmup_stable_decay"
    """Learning-rate schedule: warmup_stable_decay, or {class_path: torch.optim.lr_scheduler.CosineAnnealingLR,
    init_args: {T_max: 1000}}. It is given the optimizer and stepped after every step."""
    callbacks: list[Any] = field(default_factory=list)
    """Lightning callbacks: early_stopping, learning_rate_monitor, model_checkpoint, or [{class_path: my_package.Mine,
    init_args: {...}}]."""
    search_path: list[str] = field(default_factory=list)
    """Directories to look for the modules of class_paths in, after sys.path, the current directory and the YAML's own;
    those that were needed are added here, so that child processes and resumed runs find the same modules."""
    muon_lr: float = 2e-2
    """Learning rate of Muon, for the hidden matrices."""
    adamw_lr: float = 3e-3
    """Learning rate of AdamW, for embeddings, head, norms, gates and convolutions."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of both; norms, gates and convolutions have none."""
    momentum: float = 0.95
    """Nesterov momentum of Muon."""
    warmup: float = 0.05
    """Share of max_steps in which the learning rate rises."""
    cooldown: float = 0.4
    """Share of max_steps in which it falls to zero at the end (warm-up, stable, decay)."""
    clip_norm: float = 1.0
    """Clip the gradient to this L2 norm; 0: no clipping."""
    val_every: int = field(default=100, metadata={"high": 2**53})
    """Steps between validations."""
    val_batches: int = field(default=4, metadata={"high": 2**53})
    """Batches of a validation."""
    val_batch_size: int = field(default=256, metadata={"high": 2**24})
    """Sequences of a validation batch."""
    checkpoint_every: int = field(default=100, metadata={"high": 2**53})
    """Steps between checkpoints."""
    log_every: int = field(default=10, metadata={"high": 2**53})
    """Steps between logged training metrics."""
    prelude_cache: str | None = None
    """Directory for the outputs of the blocks in front of the loop (sleep.loop), which must not learn
    (training.train=after_prelude): computed once for each sequence of a data set that is seen again
    (training.unique_sequences, validation); null: computed every time, to the same bits."""
    prelude_cache_gb: float = 10.0
    """Gigabytes that the files in it may take; behind that nothing is added."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Device: auto uses CUDA if available."""
    devices: int = field(default=1, metadata={"high": 4096})
    """Ranks per node, each on a GPU of its own or on a share of the cores."""
    num_nodes: int = field(default=1, metadata={"high": 2**16})
    """Nodes with that many ranks each; more than one needs torchrun or srun."""
    sharding: Literal["none", "full"] = "none"
    """full: each rank keeps a shard of the weights, gradients and optimizer state instead of a copy (FSDP2)."""
    reshard_after_forward: bool = False
    """With sharding=full: gather each block when it is used and free it again; false: gather all once per step."""
    threads: int | None = field(default=None, metadata={"high": 4096})
    """CPU threads of a rank; null: torch's default, divided among the ranks of a node."""
    time_limit: float | None = field(default=None, metadata={"high": 2**31 - 1})
    """Minutes that a process may run; null: no limit, or that of its SLURM job."""
    time_margin: float = field(default=2.0, metadata={"high": 2**31 - 1})
    """Minutes before that limit at which the run saves and stops; must cover a step, a checkpoint and a validation."""
    requeue: bool = False
    """Under SLURM: requeue the job when SIGUSR1 or the limit stops it; its command then resumes the run."""
    run_dir: str | None = None
    """Directory of the run; null: runs/<task>-<time>."""

    def __post_init__(self) -> None:
        at_least = {"max_steps": 1, "batch_size": 1, "accumulate": 1, "val_every": 1, "val_batches": 1}
        at_least |= {"val_batch_size": 1, "checkpoint_every": 1, "log_every": 1, "tbptt_windows": 1, "threads": 1}
        at_least |= {"devices": 1, "num_nodes": 1, "time_margin": 0}
        at_least |= {"prelude_cache_gb": 0, "muon_lr": 0, "adamw_lr": 0, "weight_decay": 0, "clip_norm": 0}
        for key, low in at_least.items():
            if (value := getattr(self, key)) is not None and value < low:
                raise ValueError(f"training.{key}={value} must be at least {low}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"training.accumulate={self.accumulate} does not divide training.batch_size={self.batch_size}"
            )
        if (unique := self.unique_sequences) is not None and (unique < 1 or unique % self.batch_size):
            raise ValueError(
                f"training.unique_sequences={unique} must be a multiple of training.batch_size={self.batch_size}, or "
                f"null for new ones at every step"
            )
        self._check_shares()
        self._check_sharding()
        if self.time_limit is not None and self.time_limit <= self.time_margin:
            raise ValueError(
                f"training.time_limit={self.time_limit} minutes must be more than training.time_margin="
                f"{self.time_margin}; nothing could be trained"
            )
        if self.run_dir == "":
            raise ValueError("training.run_dir is empty: name a directory, or use null for runs/<task>-<time>")
        for key, path in (("run_dir", self.run_dir), ("prelude_cache", self.prelude_cache)):
            if path is not None:
                check_path(f"training.{key}", path)
        if self.requeue and self.run_dir is None:
            raise ValueError("training.requeue=true needs a training.run_dir: a requeued job must find its run")
        if sum(stage.steps for stage in self.stages) > self.max_steps:
            raise ValueError(
                f"training.stages take {sum(stage.steps for stage in self.stages)} steps, more than "
                f"training.max_steps={self.max_steps}; shorten one of them"
            )
        if self.sampled_passes and min(self.sampled_passes) < 1:
            raise ValueError(f"training.sampled_passes={self.sampled_passes} must be numbers of passes from 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"training.momentum={self.momentum} must be in [0, 1); try 0.95")
        if min(self.warmup, self.cooldown) < 0 or self.warmup + self.cooldown > 1:
            raise ValueError(
                f"training.warmup={self.warmup} and training.cooldown={self.cooldown} are shares of max_steps: "
                f"both >= 0, together at most 1"
            )

    @property
    def uses_muon(self) -> bool:
        """Whether the hidden matrices learn with this package's Muon; an optimizer of another name has no products
        that would be counted."""
        named = self.optimizer.get("class_path") if isinstance(self.optimizer, Mapping) else self.optimizer
        return str(named).rpartition(".")[2] == TrainingConfig.optimizer

    def _check_shares(self) -> None:
        if self.batch_size % (self.processes * self.accumulate):
            raise ValueError(
                f"training.batch_size={self.batch_size} does not divide into training.devices={self.devices} x "
                f"training.num_nodes={self.num_nodes} shares of training.accumulate={self.accumulate} micro-batches; "
                f"use a multiple of {self.processes * self.accumulate}"
            )
        if self.val_batch_size < self.processes:
            raise ValueError(
                f"training.val_batch_size={self.val_batch_size} leaves some of the {self.processes} processes without "
                f"a sequence; use at least {self.processes}"
            )

    def _check_sharding(self) -> None:
        if self.sharding == "none":
            if self.reshard_after_forward:
                raise ValueError(
                    "training.reshard_after_forward=true only applies to sharded weights; set "
                    "training.sharding=full, or drop it"
                )
            return
        if self.processes == 1:
            raise ValueError(
                f"training.sharding=full needs at least two processes, and there are training.devices={self.devices} x "
                f"training.num_nodes={self.num_nodes}; add devices, or set training.sharding=none"
            )
        for key in ("compile", "cuda_graph"):
            if getattr(self, key):
                raise ValueError(
                    f"training.{key}=true cannot gather sharded weights; set training.{key}=false or "
                    f"training.sharding=none"
                )

    @property
    def trained(self) -> set[Trained]:
        """What learns at one step or another."""
        return {self.train, *(stage.train for stage in self.stages)}

    @property
    def processes(self) -> int:
        """Number of ranks."""
        return self.devices * self.num_nodes
