"""What changes from step to step: sampled N, and what the initial stages train and evict."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from sleep_lightning.config.training import Stage
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import random_seed

if TYPE_CHECKING:
    from sleep_lightning.config.experiment import Experiment

AFTER_STAGES = Stage(steps=1)
"""What holds after the last one: everything as configured (``training.train`` too)."""


def stage_of(experiment: "Experiment", step: int) -> Stage:
    """The stage of step ``step`` (from 0); after the last one, everything is as configured."""
    stages = experiment.training.stages
    ends = accumulate(stage.steps for stage in stages)
    after = replace(AFTER_STAGES, train=experiment.training.train)
    return next((stage for stage, end in zip(stages, ends, strict=True) if step < end), after)


def drawn_passes(experiment: "Experiment") -> list[int]:
    """All N that a step of the run may have."""
    t = experiment.training
    staged = [stage.n_passes for stage in t.stages if stage.n_passes is not None]
    return staged + (t.sampled_passes or [experiment.sleep.n_passes])


def sleep_of(experiment: "Experiment", step: int) -> SleepConfig:
    """The sleep of a training step: N and eviction of its stage, or N drawn from ``training.sampled_passes``."""
    stage, choices = stage_of(experiment, step), experiment.training.sampled_passes
    drawn = choices and stage.n_passes is None
    return sleep_in(experiment.sleep, stage, draw_passes(experiment, step) if drawn else stage.n_passes)


def sleeps_of(experiment: "Experiment") -> Iterator[tuple[str, SleepConfig]]:
    """Every sleep that the run may have, with the key that makes it another than the configured one: that comes first,
    with ``sleep``."""
    sleep, t = experiment.sleep, experiment.training
    yield "sleep", sleep
    for N in t.sampled_passes:
        yield "training.sampled_passes", sleep_in(sleep, AFTER_STAGES, N)
    for i, stage in enumerate(t.stages):
        for choice in t.sampled_passes if stage.n_passes is None and t.sampled_passes else [stage.n_passes]:
            yield f"training.stages[{i}]", sleep_in(sleep, stage, choice)


def sleep_in(sleep: SleepConfig, stage: Stage, n_passes: int | None) -> SleepConfig:
    """The sleep of a stage with this N; None: as configured."""
    if stage.eviction is not None:
        sleep = replace(sleep, eviction=stage.eviction)
    return sleep if n_passes is None else sleep.with_passes(n_passes)


def draw_passes(experiment: "Experiment", step: int) -> int:
    """N of a step, from ``training.sampled_passes``: by seed and step only, so that a resumed run draws the same."""
    choices = experiment.training.sampled_passes
    generator = torch.Generator().manual_seed(random_seed(experiment.training.seed, step))
    return choices[int(torch.randint(len(choices), (), generator=generator))]
