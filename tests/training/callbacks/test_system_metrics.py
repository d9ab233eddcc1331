"""Use of the machine, by MLflow's names."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sleep_lightning.training.callbacks import system_metrics
from sleep_lightning.training.callbacks.system_metrics import SystemMetrics, use_of_gpu


class Recorded:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))


def test_the_first_step_the_last_and_one_every_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(system_metrics.time, "monotonic", lambda: now[0])
    loggers = [Recorded(), Recorded()]
    trainer: Any = SimpleNamespace(loggers=loggers, global_step=0, world_size=1, num_nodes=1)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    callback = SystemMetrics(every=10)
    callback.on_train_start(trainer, module)
    for step in range(1, 26):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, None, step)
        now[0] += 1
    callback.on_train_end(trainer, module)
    assert [step for step, _ in loggers[0].rows] == [1, 11, 21, 25] and loggers[0].rows == loggers[1].rows
    row = loggers[0].rows[0][1]
    assert row.keys() == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
    }
    assert 0 < row["system/system_memory_usage_percentage"] <= 100


def test_a_gpu_without_nvml_reports_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(index: int) -> float:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (25_000_000, 100_000_000))
    monkeypatch.setattr(torch.cuda, "utilization", lacking)
    assert use_of_gpu(1) == {"gpu_1_memory_usage_megabytes": 75.0, "gpu_1_memory_usage_percentage": 75.0}
