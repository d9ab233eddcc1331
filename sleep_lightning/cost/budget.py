"""Steps that a budget of training FLOPs buys."""

from dataclasses import replace
from statistics import mean

from sleep_lightning.config import Experiment
from sleep_lightning.config.stages import sleep_of
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.sleep import SleepConfig


def steps_within(experiment: Experiment, flops: float) -> int:
    """Steps that cost at most so many training FLOPs, stages first. With sampled passes, steps of their mean cost.

    Raises:
        ValueError: they do not buy the stages and a step; the text follows the name of the budget.
    """
    of, t = StepFlops(experiment, experiment.build_model()), experiment.training
    steps, left = 0, flops
    for stage in t.stages:
        left -= stage.steps * of(sleep_of(experiment, steps))
        steps += stage.steps
    choices = t.sampled_passes or [experiment.sleep.n_passes]
    step = mean(of(_with_passes(experiment.sleep, n)) for n in choices)
    if left < step:
        least = flops - left + step
        raise ValueError(f"buys no step{' after the stages' if steps else ''}; give at least {least:.4g}")
    return steps + int(left // step)


def _with_passes(sleep: SleepConfig, n_passes: int) -> SleepConfig:
    gradient = None if sleep.grad_passes is None else min(sleep.grad_passes, n_passes)
    return replace(sleep, n_passes=n_passes, grad_passes=gradient)
