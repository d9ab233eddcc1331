"""Overhead beside the training step: sampling, Lightning's loop, logging and progress."""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.config import Experiment, TrainingConfig, load_experiment
from sleep_lightning.model import WindowModel
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.timing import interleave, summarize
from sleep_lightning.tracking.mlflow_logger import MLflowRun
from sleep_lightning.training.callbacks.progress_bar import SleepProgressBar
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.step_gradients import StepGradients
from sleep_lightning.training.trainer import build_trainer, quiet_lightning

STEPS = 40
SKIPPED = 5
"""Warm-up steps that are not counted."""


def bench_overhead(seconds: float) -> Iterator[dict[str, object]]:
    """Rows of seconds, and shares of a training step of the laptop experiment.

    ``fit`` minus the bare loop is a difference of two long times that includes the start and the end of a run. The last
    row does not: it is the time that the steps of one run spent outside of what the bare loop does.
    """
    experiment = load_experiment(
        {"task": {"ring_size": 12, "steps": [2]}, "model": {"n_heads": 4}, "sleep": {"window_size": 12, "n_passes": 2}},
        [f"training.max_steps={STEPS}", "training.val_every=1000000", "training.checkpoint_every=1000000"],
    )
    task, t = experiment.task.build(), experiment.training
    with tempfile.TemporaryDirectory() as folder:
        shares: list[tuple[float, float]] = []
        calls: dict[str, Callable[[], object]] = {
            "bare loop": lambda: _bare_loop(experiment),
            "fit": lambda: shares.append(_fit(experiment, Path(folder))),
            "sampling": lambda: [task.batch(t.batch_size, seed=0, position=i) for i in range(STEPS)],
        }
        times = interleave(calls, seconds, rounds=3)
        bare = summarize(times["bare loop"]).median
        for name in calls:
            seconds_taken = summarize(times[name]).median
            yield {
                "what": "overhead",
                "shape": f"{STEPS} steps of the laptop experiment",
                "contender": name,
                "ms_per_step": 1e3 * seconds_taken / STEPS,
                "share_of_bare_step": seconds_taken / bare,
                "rounds": len(times[name]),
            }
        work, outside = (median(share[i] for share in shares) for i in (0, 1))
        yield {
            "what": "overhead",
            "shape": f"{STEPS} steps of the laptop experiment",
            "contender": "fit, outside of the bare loop's work",
            "ms_per_step": 1e3 * outside,
            "share_of_bare_step": outside / work,
            "rounds": len(shares),
        }


def _bare_loop(experiment: Experiment) -> None:
    """The same steps on one batch without trainer, sampling and logging."""
    task, t = experiment.task.build(), experiment.training
    torch.manual_seed(0)
    model, batch = experiment.build_model(task), task.batch(t.batch_size, seed=0, position=0)
    optimizer = build_optimizer(model, t)
    for _ in range(STEPS):
        optimizer.zero_grad()
        accumulate_gradients(model, batch, experiment.sleep)
        clip_grad_norm_(model.parameters(), t.clip_norm)
        optimizer.step()


class _TimedGradients(StepGradients):
    """Adds the seconds that it takes to ``work``."""

    def __init__(self, model: WindowModel, training: TrainingConfig) -> None:
        super().__init__(model, training)
        self.work, self._began = 0.0, 0.0

    def begin(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def end(self, *_: Any) -> None:
        self.work += time.perf_counter() - self._began

    def accumulate(
        self, batch: TaskBatch, sleep: SleepConfig, backward: Callable[[Tensor], object], n_labels: Tensor
    ) -> Tensor:
        self.begin()
        loss = super().accumulate(batch, sleep, backward, n_labels)
        self.end()
        return loss

    def reduce(self, loss: Tensor, clip_norm: float) -> tuple[Tensor, Tensor]:
        self.begin()
        reduced = super().reduce(loss, clip_norm)
        self.end()
        return reduced


class _TimedModule(SleepModule):
    """Times the part of each step that the bare loop has, too: gradients, clipping, optimizer."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self.timed = self.gradients = _TimedGradients(self.model, experiment.training)
        self.ends: list[tuple[float, float]] = []

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        configured["optimizer"].register_step_pre_hook(self.timed.begin)
        configured["optimizer"].register_step_post_hook(self.timed.end)
        return configured

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        self.ends.append((time.perf_counter(), self.timed.work))


def _fit(experiment: Experiment, folder: Path) -> tuple[float, float]:
    """Seconds a step (medians) of the bare loop's work, and of all else."""
    quiet_lightning()
    run = RunDirectory(Path(tempfile.mkdtemp(dir=folder)))
    logger = MLflowRun(f"sqlite:///{folder}/mlflow.db", "bench")
    trainer = build_trainer(experiment, run, [logger], [SleepProgressBar()])
    module = _TimedModule(experiment)
    trainer.fit(module, datamodule=TaskDataModule(experiment))
    logger.end("FINISHED")
    steps = [(b[1] - a[1], b[0] - a[0] - (b[1] - a[1])) for a, b in pairwise(module.ends[SKIPPED:])]
    return median(work for work, _ in steps), median(rest for _, rest in steps)
