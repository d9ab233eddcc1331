"""FLOPs of optimiser steps and of a whole run, where N and eviction may change from step to step."""

from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import mean

from sleep_lightning.config import Experiment
from sleep_lightning.config.outline import outline
from sleep_lightning.config.stages import AFTER_STAGES, draw_passes, sleep_in, sleep_of, stage_of
from sleep_lightning.cost.flops import muon_matrices, optimizer_cost, sequence_cost
from sleep_lightning.model import WindowModel
from sleep_lightning.sleep import SleepConfig

DRAWN = 20_000
"""Steps of a run whose N is drawn to count it: a drawing takes 10 us."""


class StepFlops:
    """FLOPs of an optimiser step, as if all parameters were trained (in a stage, not all are).

    Attributes:
        optimizer: Muon's own products, part of every step; 0 for other optimizers, which have none.
    """

    def __init__(self, experiment: Experiment, model: WindowModel) -> None:
        self._experiment = experiment
        self._by_sleep: dict[str, int] = {}
        matrices = muon_matrices(experiment, model)
        self.optimizer = optimizer_cost([(rows, p.shape[1]) for p, splits in matrices for rows in splits])

    def __call__(self, sleep: SleepConfig) -> int:
        """FLOPs of a step with this sleep."""
        key = str(sleep)
        if key not in self._by_sleep:
            self._by_sleep[key] = sequence_cost(replace(self._experiment, sleep=sleep)).total
        return self._experiment.training.batch_size * self._by_sleep[key] + self.optimizer

    def run(self) -> int:
        """FLOPs of all steps of the experiment, with its stages and sampled passes.

        The first ``DRAWN`` steps count with the N that is drawn for them, later ones with the mean.
        """
        t = self._experiment.training
        ends = [0, *accumulate(stage.steps for stage in t.stages), t.max_steps]
        return sum(self._steps(start, end) for start, end in pairwise(ends) if start < end)

    def steps_within(self, flops: float) -> int:
        """Steps that cost at most so many FLOPs, those of the stages first; with sampled passes at their mean.

        Raises:
            ValueError: they do not buy the stages and a step; the text follows the name of the budget.
        """
        e, t = self._experiment, self._experiment.training
        ends = [0, *accumulate(stage.steps for stage in t.stages)]
        left = flops - sum(self._steps(start, end) for start, end in pairwise(ends))
        step = mean(self(sleep_in(e.sleep, AFTER_STAGES, N)) for N in t.sampled_passes or [e.sleep.n_passes])
        if left < step:
            least = flops - left + step
            raise ValueError(f"buys no step{' after the stages' if t.stages else ''}; give at least {least:.4g}")
        return ends[-1] + int(left // step)

    def _steps(self, start: int, end: int) -> int:
        """FLOPs of steps of one stage."""
        e, stage = self._experiment, stage_of(self._experiment, start)
        if stage.n_passes is not None or not (choices := e.training.sampled_passes):
            return (end - start) * self(sleep_of(e, start))
        flops = {N: self(sleep_in(e.sleep, stage, N)) for N in choices}
        drawn = max(start, min(end, DRAWN))
        exact = sum(flops[draw_passes(e, step)] for step in range(start, drawn))
        return exact + (end - drawn) * sum(flops[N] for N in choices) // len(choices)


def predict_flops(experiment: Experiment) -> float:
    """Training FLOPs of a run, before its first step."""
    return float(StepFlops(experiment, outline(experiment)).run())


def steps_within(experiment: Experiment, flops: float) -> int:
    """``StepFlops.steps_within`` of an experiment that is not built."""
    return StepFlops(experiment, outline(experiment)).steps_within(flops)
