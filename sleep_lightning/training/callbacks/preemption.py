"""Stops that are not planned: signals and time limits. They save, and all ranks stop after the same step."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from rich.console import Console

from sleep_lightning.config import TrainingConfig
from sleep_lightning.runs.signals import Handlers, SignalsInterrupt, StopReason, install, restore

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule


class Preemption(pl.Callback):
    """Turns the first signal of ``STOP_SIGNALS``, or a deadline, into a stop at the end of the step.

    One rank that gets the signal is enough: votes to stop travel with the gradients, and no handler exchanges anything.
    ``StepCheckpoint`` saves the step, after its validation if it has one. The next step is not begun.

    Args:
        deadline: on the monotonic clock, when to stop; None: never.

    Attributes:
        reason: why the run stops; None if it was left alone.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.reason: StopReason | None = None
        self._votes: list[float] = []
        self._previous: Handlers = {}
        self._announces = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: "SleepModule") -> None:  # type: ignore[override]
        self.reason = None
        pl_module.gradients.forget_votes()
        self._votes, self._announces = pl_module.gradients.stop_votes, trainer.is_global_zero
        self._previous = install(self._note)
        SignalsInterrupt.check()  # one that came before

    def _note(self, number: int, frame: FrameType | None) -> None:
        if any(self._votes) and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._vote(StopReason(128 + number), "Ctrl-C again stops at once")

    def _vote(self, reason: StopReason, more: str) -> None:
        self._votes[list(StopReason).index(reason)] = 1.0
        if self._announces:
            Console(stderr=True).print(f"{reason.name}: saving after this step ({more})")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.reason is not None:  # not before: Lightning would validate where no validation is due
            trainer.should_stop = True
        elif self.deadline is not None and time.monotonic() >= self.deadline and not any(self._votes):
            self._vote(StopReason.TIME_LIMIT, "fit --resume resumes it")

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "SleepModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        agreed = pl_module.gradients.stop_agreed.tolist()
        self.reason = _first(agreed)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.reason is None:  # a signal during the last step's validation
            self.reason = _first(self._votes)
        restore(self._previous)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        restore(self._previous)


def _first(votes: Sequence[float]) -> StopReason | None:
    """The first reason that has votes."""
    return next((reason for reason, vote in zip(StopReason, votes, strict=True) if vote), None)


def stop_time(training: TrainingConfig, environment: Mapping[str, str] = os.environ) -> float | None:
    """When to save and stop: ``training.time_margin`` before the limit of the process or the end of its SLURM job.

    Returns:
        On the monotonic clock, which nobody sets; None if nothing limits the run.
    """
    ends, now = [], time.monotonic()
    if training.time_limit is not None:
        ends.append(now - _age() + 60 * training.time_limit)
    if "SLURM_JOB_END_TIME" in environment:  # seconds since 1970
        ends.append(now + float(environment["SLURM_JOB_END_TIME"]) - time.time())
    return min(ends) - 60 * training.time_margin if ends else None


def _age() -> float:
    """Seconds since this process started, by a clock that nobody sets."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def was_requeued(training: TrainingConfig, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM has started this job before, and the run shall be resumed."""
    return training.requeue and int(environment.get("SLURM_RESTART_COUNT", 0)) > 0


def requeue(
    training: TrainingConfig, reason: StopReason | None, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Put the SLURM job back into the queue if it was stopped for lack of time (SIGUSR1 is how SLURM announces it).

    SLURM then ends the job, and starts it again when there is room. After SIGTERM requeueing is SLURM's own business.

    Returns:
        What was done, or why it could not be, in words; None if nothing was to be done.
    """
    job = environment.get("SLURM_JOB_ID")
    if not training.requeue or job is None or reason not in (StopReason.SIGUSR1, StopReason.TIME_LIMIT):
        return None
    try:
        subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=True)
    except subprocess.CalledProcessError as error:
        return f"SLURM did not requeue job {job}: {' '.join(error.stderr.split())}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM did not requeue job {job}: {error}"
    return f"SLURM job {job} is in the queue again"
