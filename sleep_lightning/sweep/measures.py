"""What an objective or a bound may be: a result of a run by its short name, or whatever it logs."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from sleep_lightning.formatting import score, with_unit
from sleep_lightning.training.resource_usage import MEASURED

if TYPE_CHECKING:
    from sleep_lightning.sweep.spec import SweepSpec

SCORES = ("exact_match", "token_accuracy", "loss")
SHARES = ("exact_match", "token_accuracy")
MEASURES = (*SCORES, "train_flops", *MEASURED)
"""Short names of what every run reports."""
BOUNDS = ("state_bytes", "wake_flops_per_token", "sleep_flops_per_window", "train_flops")
"""Known before step 0: a point above its bound is not run."""
COSTS = {"train_flops": "FLOP", "wall_s": "s", "energy_j": "J", "peak_memory_bytes": "B", "step_memory_bytes": "B"}
"""Objectives that are costs, and their units."""
_UNITS = COSTS | {"state_bytes": "B", "wake_flops_per_token": "FLOP", "sleep_flops_per_window": "FLOP"}


def text_of(measure: str, value: float) -> str:
    """A value of a measure or of a bound, with its unit."""
    return with_unit(value, _UNITS[measure]) if measure in _UNITS else score(value)


def metric_of(measure: str) -> str:
    """The name under which loggers have it."""
    if measure not in MEASURES:
        return measure
    return f"{'val' if measure in SCORES else 'cost'}/{measure}"


def measured(summary: Mapping[str, Any], measure: str) -> float | None:
    """A measure of a finished run; None if it was not logged.

    Args:
        summary: content of its ``summary.json``.
        measure: short name, or that of a metric.
    """
    for known in (summary, summary.get("measured", {}), summary.get("metrics", {})):
        if (value := known.get(measure)) is not None:
            return float(value)
    return None


def why_unusable(result: Mapping[str, float], objectives: Iterable[str]) -> str | None:
    """What is wrong with a result: an objective that is missing or no number, with which nothing compares; None if
    nothing is."""
    for name in objectives:
        if name not in result:
            return f"{name}, an objective, was not logged"
        if not isfinite(result[name]):
            return f"{name} is {result[name]}"
    return None


def is_share(measure: str) -> bool:
    """Whether it lies between 0 and 1."""
    return measure.rpartition("/")[2] in SHARES


def pruner_of(spec: "SweepSpec") -> Literal["none", "median", "frontier"]:
    """How trials are stopped early: the curves are of exact match over training FLOPs, and say nothing of other
    objectives."""
    return spec.pruner if spec.objectives.keys() <= {*SCORES, "train_flops", "wall_s"} else "none"


def check_measure(key: str, name: str, *, logs_more: bool) -> None:
    """Whether a run can report it.

    Args:
        key: objectives or constraints.
        name: short name, or that of a metric.
        logs_more: whether something of the user's may log metrics of its own.

    Raises:
        ValueError: it cannot.
    """
    known = dict.fromkeys((*(BOUNDS if key == "constraints" else ()), *MEASURES))
    if name in known or name.startswith(("val/", "train/", "cost/")) or (logs_more and "/" in name):
        return
    own = "" if logs_more else "; a metric of your own is logged by one of training.callbacks"
    raise ValueError(
        f"{key}.{name} is not a known metric; use one of {', '.join(known)}, or a logged one by its whole name, for "
        f"example val/hop_3/exact_match{own}"
    )
