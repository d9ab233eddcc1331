"""Whether the paper's own sizes can be trained here: its pretrained models lie somewhere, and there is a GPU."""

from collections.abc import Iterable
from pathlib import Path

import torch

from sleep_lightning.cli.sweep import SweepJob, prepare
from sleep_lightning.config.pretrained_model import check_weights
from sleep_lightning.formatting import in_flop
from sleep_lightning.sweep.trial import build_trial

OF_WEIGHTS = ("model.pretrained=", "task.tokenizer=")
"""What is wrong with a sweep whose model is not there, or only its config."""
MOST_WITHOUT_GPU = 1e17
"""Training FLOPs: a month or so of a dozen cores."""


def prepare_where_there_are_weights(paths: Iterable[Path], *, train: bool) -> tuple[dict[Path, SweepJob], list[str]]:
    """The sweeps that can be run, and what is said of those whose base names a pretrained model that is not there.

    Args:
        paths: of the sweeps.
        train: they are to be trained, not only scored: the weights must be there, not their config alone.

    Raises:
        ValueError: a sweep with another fault, or none is left.
    """
    jobs, left_out = dict[Path, SweepJob](), list[str]()
    for path in paths:
        try:
            job = prepare(str(path), None)
        except ValueError as error:
            if not any(key in str(error) for key in OF_WEIGHTS):
                raise
            left_out.append(f"{path.name} left out: {error}")
            continue
        try:
            if train:
                check_weights(job.sweep.base)
        except ValueError as error:
            left_out.append(f"{path.name} left out: {error}")
            continue
        jobs[path] = job
    if not jobs:
        raise ValueError(f"--paper: {'; '.join(left_out)}")
    return jobs, left_out


def check_machine(jobs: Iterable[SweepJob]) -> None:
    """Raises ValueError if it would take months here: what a GPU is for."""
    if torch.cuda.is_available():
        return
    trials = ((job, i, point) for job in jobs for i, point in enumerate(job.sweep.space.points()))
    flops = sum(build_trial(job.sweep, i, point, job.folder).train_flops for job, i, point in trials)
    if flops > MOST_WITHOUT_GPU:
        raise ValueError(
            f"--paper trains {in_flop(flops)} and there is no GPU here; run it on one (docs/paper_on_one_gpu.md), or "
            f"score what there is with --so-far"
        )
