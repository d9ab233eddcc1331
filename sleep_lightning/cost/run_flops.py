"""FLOPs of optimiser steps and of a whole run, where N and eviction may change from step to step."""

from dataclasses import replace
from itertools import accumulate, pairwise

from sleep_lightning.config import Experiment
from sleep_lightning.config.stages import sleep_of
from sleep_lightning.cost.flops import optimizer_cost, sequence_cost
from sleep_lightning.model import WindowModel
from sleep_lightning.model.parameter_groups import hidden_matrices
from sleep_lightning.sleep import SleepConfig


class StepFlops:
    """FLOPs of an optimiser step, as if all parameters were trained (in a stage, not all are).

    Attributes:
        optimizer: Muon's own products, part of every step.
    """

    def __init__(self, experiment: Experiment, model: WindowModel) -> None:
        self._experiment = experiment
        self._by_sleep: dict[str, int] = {}
        self.optimizer = optimizer_cost([(rows, p.shape[1]) for p, splits in hidden_matrices(model) for rows in splits])

    def __call__(self, sleep: SleepConfig) -> int:
        """FLOPs of a step with this sleep."""
        key = str(sleep)
        if key not in self._by_sleep:
            self._by_sleep[key] = sequence_cost(replace(self._experiment, sleep=sleep)).total
        return self._experiment.training.batch_size * self._by_sleep[key] + self.optimizer

    def run(self) -> int:
        """FLOPs of all steps of the experiment, with its stages and sampled passes."""
        e, t = self._experiment, self._experiment.training
        if t.sampled_passes:
            return sum(self(sleep_of(e, step)) for step in range(t.max_steps))
        ends = [0, *accumulate(stage.steps for stage in t.stages), t.max_steps]
        return sum((end - start) * self(sleep_of(e, start)) for start, end in pairwise(ends) if start < end)
