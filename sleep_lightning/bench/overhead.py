"""What is not the step: sampling, Lightning's loop, logging and progress; and the time until the first step."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.bench.timing import interleave, summarize
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.model import HybridLM
from sleep_lightning.run_directory import RunDirectory
from sleep_lightning.tracking.mlflow_logger import MLflowRun
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.optim import build_optimizer
from sleep_lightning.training.progress import RichProgress
from sleep_lightning.training.tbptt import accumulate_gradients
from sleep_lightning.training.trainer import build_trainer, quiet_lightning

STEPS = 40


def bench_overhead(seconds: float) -> Iterator[dict[str, object]]:
    """Rows of seconds and shares of a training step of the laptop experiment."""
    experiment = load_experiment(
        {"task": {"ring_size": 12, "steps": [2]}, "model": {"n_heads": 4}, "sleep": {"window_size": 12, "n_passes": 2}},
        [f"training.max_steps={STEPS}", "training.val_every=1000000", "training.checkpoint_every=1000000"],
    )
    task, t = experiment.task.build(), experiment.training
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            "bare loop": lambda: _bare_loop(experiment),
            "fit": lambda: _fit(experiment, Path(folder)),
            "sampling": lambda: [task.batch(t.batch_size, seed=0, position=i) for i in range(STEPS)],
        }
        times = interleave(calls, seconds, rounds=3)
        bare = summarize(times["bare loop"]).median
        for name in calls:
            median = summarize(times[name]).median
            yield {
                "what": "overhead",
                "shape": f"{STEPS} steps of the laptop experiment",
                "contender": name,
                "ms_per_step": 1e3 * median / STEPS,
                "share_of_bare_step": median / bare,
                "rounds": len(times[name]),
            }
        command = [sys.executable, "-m", "sleep_lightning", "fit", "task.ring_size=12", "sleep.window_size=12"]
        command += ["training.max_steps=1", f"training.run_dir={folder}/first", "tracking.enabled=false"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        whole = time.perf_counter() - started
        yield {"what": "one-step fit, process start to end", "contender": "fit", "seconds": whole}


def _bare_loop(experiment: Experiment) -> None:
    """The same steps on one batch, without trainer, sampling or logging."""
    task, t = experiment.task.build(), experiment.training
    torch.manual_seed(0)
    model, batch = HybridLM(experiment.model, len(task.vocab)), task.batch(t.batch_size, seed=0, position=0)
    optimizer = build_optimizer(model, t)
    for _ in range(STEPS):
        optimizer.zero_grad()
        accumulate_gradients(model, batch, experiment.sleep)
        clip_grad_norm_(model.parameters(), t.clip_norm)
        optimizer.step()


def _fit(experiment: Experiment, folder: Path) -> None:
    quiet_lightning()
    run = RunDirectory(Path(tempfile.mkdtemp(dir=folder)))
    logger = MLflowRun(f"sqlite:///{folder}/mlflow.db", "bench")
    trainer = build_trainer(experiment, run, logger, [RichProgress()])
    trainer.fit(SleepModule(experiment), datamodule=TaskDataModule(experiment))
    logger.end("FINISHED")
