"""Runs that may not take as long as they need: when they stop by themselves, and how SLURM starts them again."""

import os
import subprocess
from collections.abc import Mapping

import psutil

from sleep_lightning.config import TrainingConfig
from sleep_lightning.training.callbacks.preemption import StopReason


def stop_time(training: TrainingConfig, environment: Mapping[str, str] = os.environ) -> float | None:
    """When to save and stop: ``training.time_margin`` before the limit of the process or the end of its SLURM job.

    Returns:
        Seconds since 1970; None if nothing limits the run.
    """
    ends = []
    if training.time_limit is not None:
        ends.append(psutil.Process().create_time() + 60 * training.time_limit)
    if "SLURM_JOB_END_TIME" in environment:
        ends.append(float(environment["SLURM_JOB_END_TIME"]))
    return min(ends) - 60 * training.time_margin if ends else None


def was_requeued(training: TrainingConfig, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM has started this job before, and the run shall go on with what it did then."""
    return training.requeue and int(environment.get("SLURM_RESTART_COUNT", 0)) > 0


def requeue(
    training: TrainingConfig, reason: StopReason | None, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Put the SLURM job back into the queue if it was stopped for lack of time (SIGUSR1 is how SLURM tells).

    SLURM then ends the job, and starts it again when there is room. After SIGTERM it is SLURM's own business.

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
