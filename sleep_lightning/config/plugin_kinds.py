"""What plug-ins are for: the kinds, their built-in names and what each must be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sleep_lightning.tasks import TASKS

KindName = Literal["task", "model", "memory_rule", "optimizer", "schedule", "callback", "logger"]


@dataclass(frozen=True)
class Kind:
    """What a plug-in is for.

    Attributes:
        group: of entry points.
        names: built-in ones, name -> import path.
        base: import path of the class that a plug-in inherits from.
        methods: what it must have instead, where no base class is asked for.
        given: number of positional arguments that it is given before ``init_args``.
        fixed: keyword arguments that it is given and ``init_args`` cannot set.
        offered: keyword arguments that it is given where it takes them and ``init_args`` does not set them.
        function: whether a function that returns one will do.
    """

    group: str
    names: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    methods: tuple[str, ...] = ()
    given: int = 0
    fixed: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    function: bool = True


KINDS: dict[KindName, Kind] = {
    "task": Kind("sleep_lightning.tasks", TASKS, methods=("sample", "batch"), function=False),
    "model": Kind(
        "sleep_lightning.models",
        methods=("embed", "blocks", "write", "logits", "zero_memory"),
        fixed=("vocab_size", "neutral_pad"),
    ),
    "memory_rule": Kind(
        "sleep_lightning.memory_rules",
        {
            "gated_delta_net": "sleep_lightning.model.gated_delta_net.GatedDeltaNet",
            "gated_hebbian": "sleep_lightning.model.gated_hebbian.GatedHebbian",
            "delta_net": "sleep_lightning.model.delta_net.DeltaNet",
            "jet": "sleep_lightning.model.jet.JetBlock",
        },
        base="sleep_lightning.model.fast_weights.FastWeights",
        given=8,
        function=False,
    ),
    "optimizer": Kind(
        "sleep_lightning.optimizers",
        {"muon_adamw": "sleep_lightning.training.optimizer.muon_adamw"},
        base="torch.optim.optimizer.Optimizer",
        given=1,
        offered=("config",),
    ),
    "schedule": Kind(
        "sleep_lightning.schedules",
        {"warmup_stable_decay": "sleep_lightning.training.schedule.WarmupStableDecay"},
        base="torch.optim.lr_scheduler.LRScheduler",
        given=1,
        offered=("config",),
    ),
    "callback": Kind(
        "sleep_lightning.callbacks",
        {
            "early_stopping": "lightning.pytorch.callbacks.EarlyStopping",
            "learning_rate_monitor": "lightning.pytorch.callbacks.LearningRateMonitor",
            "model_checkpoint": "lightning.pytorch.callbacks.ModelCheckpoint",
        },
        base="lightning.pytorch.callbacks.callback.Callback",
    ),
    "logger": Kind(
        "sleep_lightning.loggers",
        {
            "mlflow": "sleep_lightning.tracking.mlflow_logger.MLflowRun",
            "tensorboard": "lightning.pytorch.loggers.TensorBoardLogger",
            "csv": "lightning.pytorch.loggers.CSVLogger",
            "wandb": "lightning.pytorch.loggers.WandbLogger",
        },
        base="lightning.pytorch.loggers.logger.Logger",
        offered=("save_dir", "name", "version"),
    ),
}
