"""From a point of the space to the experiment that it trains."""

import json
from collections.abc import Mapping
from typing import Any

from sleep_lightning.compare.arms import build_arms
from sleep_lightning.config import Experiment, Override, load_experiment
from sleep_lightning.cost.run_flops import steps_within

PASSES = "sleep.n_passes"
ARM = "arm"
"""Arms of ``compare``: a choice of changes, no key of an experiment."""
TRAIN_FLOPS = "train_flops"
"""Training FLOPs of a run, no key of an experiment: ``training.max_steps`` becomes what they buy."""
STEPS = "training.max_steps"


def apply_point(base: Experiment, values: Mapping[str, Any], *more: Override) -> Experiment:
    """The experiment of a point: the base with its values, then its arm's changes, then ``more``. Training FLOPs are
    turned into steps before the arm, which may build on them, and after it.

    Raises:
        ValueError: values that do not go together.
    """
    # a choice that is text is read as on the command line: "[4, 8]" is a list where the key takes one
    own = {key: value for key, value in values.items() if key not in (ARM, TRAIN_FLOPS)}
    keys = [f"{key}={x}" if isinstance(x, str) else (key, x) for key, x in own.items()]
    experiment = _within(load_experiment(base.to_dict(), [*keys, *more]), values)
    if ARM not in values:
        return experiment
    return _within(build_arms(experiment, [values[ARM]], f"space.{ARM}")[0].apply(experiment, *more), values)


def point_key(values: Mapping[str, Any]) -> str:
    """A key that is equal for equal points."""
    return json.dumps(values, sort_keys=True)


def _within(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    if TRAIN_FLOPS not in values:
        return experiment
    try:
        steps = steps_within(experiment, values[TRAIN_FLOPS])
    except ValueError as error:
        raise ValueError(f"space.{TRAIN_FLOPS}={values[TRAIN_FLOPS]:g} {error}") from error
    return load_experiment(experiment.to_dict(), [(STEPS, steps), experiment.uri_override()])


def passes_of(base: Experiment, values: Mapping[str, Any]) -> int:
    """N of a point; its budget of FLOPs, which takes a model to turn into steps, does not matter."""
    if ARM not in values:
        return int(values.get(PASSES, base.sleep.n_passes))
    return apply_point(base, {key: x for key, x in values.items() if key != TRAIN_FLOPS}).sleep.n_passes
