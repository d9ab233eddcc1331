"""FLOPs and tokens so far beside every metric, and what the run takes, beside what was predicted."""

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from sleep_lightning.config.stages import sleep_of
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.training.resource_usage import ResourceUsage

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule


class ResourceMonitor(pl.Callback):
    """Logs ``cost/tokens`` and ``cost/train_flops`` with every training and validation metric, and with validations
    ``cost/{wall_s,tokens_per_s,peak_memory_bytes,step_memory_bytes,energy_j}``, as far as the machine reports them, and
    ``cost/predicted_{train_flops,step_memory_bytes}``; ``cost/log10_train_flops`` is for charts with linear axes.
    Nothing is logged twice at a step.

    Make it before the module, so that the memory held before it is not counted as the module's.

    Attributes:
        usage: what was measured.
        train_flops: of all steps so far, by the experiment's cost.
        predicted_step_memory: bytes; None before training, and where it cannot be predicted.
    """

    def __init__(self) -> None:
        self.usage = ResourceUsage()
        self.train_flops = 0
        self.predicted_step_memory: int | None = None
        self._tokens, self._steps, self._step_tokens = 0, 0, 0
        self._step_flops: StepFlops | None = None
        self._logged: tuple[int, set[str]] = -1, set()

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "ResourceMonitor":
        """That of a trainer: ``SleepModule`` sees to it that there is one."""
        return next(callback for callback in trainer.callbacks if isinstance(callback, cls))  # type: ignore[attr-defined]

    def setup(self, trainer: pl.Trainer, pl_module: "SleepModule", stage: str) -> None:  # type: ignore[override]
        if self._step_flops is None:
            experiment = pl_module.experiment
            self._step_flops = StepFlops(experiment, pl_module.model)
            self._step_tokens = experiment.training.batch_size * pl_module.task.sequence_length

    def on_train_start(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:  # type: ignore[override]
        shards = pl_module.gradients.shards
        with nullcontext() if shards is None else shards.gathered():
            self.predicted_step_memory = predict_step_memory(pl_module.experiment, pl_module.model)
        self.usage.begin(pl_module.device, trainer.world_size, trainer.world_size // trainer.num_nodes)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "SleepModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._step_flops is not None
        tokens, self._steps = pl_module.step_tokens, trainer.global_step
        flops = self._step_flops(sleep_of(pl_module.experiment, trainer.global_step - 1))
        # a loader of the user's own may have other batches than the experiment
        self.train_flops += flops if tokens == self._step_tokens else flops * tokens // self._step_tokens
        self._tokens += tokens
        self.usage.keep_energy()
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer, self.cost_so_far())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.usage.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.log_all(trainer)
            self.usage.resume()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.usage.pause()

    def cost_so_far(self) -> dict[str, float]:
        """Tokens and FLOPs of training until now."""
        return {"cost/tokens": float(self._tokens), "cost/train_flops": float(self.train_flops)}

    def measured(self) -> dict[str, float]:
        """What was measured of it: ``ResourceUsage.measured``."""
        return self.usage.measured(self._steps, self._tokens / max(self._steps, 1))

    def measured_so_far(self) -> dict[str, float]:
        """The same by the names under which it is logged."""
        return {f"cost/{name}": x for name, x in self.measured().items()}

    def predicted_run_flops(self) -> int:
        """Training FLOPs of the whole run."""
        assert self._step_flops is not None
        return self._step_flops.run()

    def log_all(self, trainer: pl.Trainer) -> None:
        """All that is known of the cost at this step."""
        known = self.cost_so_far() | self.measured_so_far()
        if self.train_flops:
            known["cost/log10_train_flops"] = math.log10(self.train_flops)
        known["cost/predicted_train_flops"] = float(self.predicted_run_flops())
        if self.predicted_step_memory is not None:
            known["cost/predicted_step_memory_bytes"] = float(self.predicted_step_memory)
        self._log(trainer, known)

    def _log(self, trainer: pl.Trainer, metrics: dict[str, float]) -> None:
        """What is not logged at this step yet: training logs and validations meet at some."""
        step = trainer.global_step
        logged = self._logged[1] if self._logged[0] == step else set()
        self._logged = step, logged | metrics.keys()
        if new := {name: value for name, value in metrics.items() if name not in logged}:
            for logger in trainer.loggers:
                logger.log_metrics(new, step)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["train_flops"], checkpoint["train_tokens"] = self.train_flops, self._tokens
        checkpoint["predicted_step_memory"] = self.predicted_step_memory
        checkpoint.update(self.usage.state_dict())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING or "train_flops" not in checkpoint:
            return
        self._steps = checkpoint["global_step"]
        self.train_flops, self.predicted_step_memory = (
            checkpoint["train_flops"],
            checkpoint.get("predicted_step_memory"),
        )
        self._tokens = checkpoint.get("train_tokens", self._steps * self._step_tokens)
        self.usage.load_state_dict(checkpoint, steps=self._steps)
