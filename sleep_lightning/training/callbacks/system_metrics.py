"""What the machine does while a run trains: its CPU, its memory, the run's GPUs."""

import time
from typing import Any

import lightning.pytorch as pl
import psutil
import torch


class SystemMetrics(pl.Callback):
    """Logs ``system/...`` by the names under which MLflow's page of system metrics knows them.

    At the first step, at most every so many seconds from there, and at the last. CPU use is the mean since the time
    before, of all cores of the machine, whoever uses them; that of a GPU is NVML's of the moment.

    Args:
        every: seconds.
    """

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self._next, self._step = 0.0, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        psutil.cpu_percent()  # counts from here
        self._next = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() >= self._next:
            self._log(trainer, pl_module.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > self._step >= 0:
            self._log(trainer, pl_module.device)

    def _log(self, trainer: pl.Trainer, device: torch.device) -> None:
        self._next, self._step = time.monotonic() + self.every, trainer.global_step
        if not trainer.loggers:
            return
        ranks = trainer.world_size // trainer.num_nodes
        gpus = [] if device.type != "cuda" else range(ranks) if ranks > 1 else [device.index or 0]
        metrics = use_of_machine() | {name: value for gpu in gpus for name, value in use_of_gpu(gpu).items()}
        for logger in trainer.loggers:
            logger.log_metrics({f"system/{name}": value for name, value in metrics.items()}, trainer.global_step)


def use_of_machine() -> dict[str, float]:
    """CPU since the last call, and memory now; percent and MB."""
    memory = psutil.virtual_memory()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
    }


def use_of_gpu(index: int) -> dict[str, float]:
    """Memory, utilization and power of a visible GPU now, as far as NVML reports them; percent, MB and W."""
    free, total = torch.cuda.mem_get_info(index)
    figures = {
        "memory_usage_megabytes": (total - free) / 1e6,
        "memory_usage_percentage": 100 * (1 - free / total),
    }
    try:
        figures["utilization_percentage"] = float(torch.cuda.utilization(index))
        figures["power_usage_watts"] = torch.cuda.power_draw(index) / 1e3
    except Exception:  # whatever NVML lacks here: errors of its own, a missing package, a method of newer drivers
        pass
    return {f"gpu_{index}_{name}": value for name, value in figures.items()}
