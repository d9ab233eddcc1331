"""Whether the paper's own sizes can be trained here: its pretrained models lie somewhere, and there is a GPU."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from sleep_lightning.cli.sweep import SweepJob, prepare
from sleep_lightning.formatting import in_flop
from sleep_lightning.sweep.trial import build_trial

MOST_WITHOUT_GPU = 1e17
"""Training FLOPs: a month or so of a dozen cores."""


def without_weights(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Sweeps whose base names a pretrained model that is not there, and what is said of it."""
    for path in paths:
        try:
            prepare(str(path), None)
        except ValueError as error:
            if "model.pretrained" not in str(error):
                raise
            yield path, f"{path.name} left out: {error}"


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
