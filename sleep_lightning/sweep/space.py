"""The search space: which keys of an experiment vary, and how."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import isfinite, prod
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sleep_lightning.config.checks import check_numbers
from sleep_lightning.config.reading import as_meant

MOST_STEPS = 1e9
"""Values of a parameter with a step at most."""
MOST_POINTS = 100_000
"""Points of a grid at most: Optuna lists them all."""


@dataclass
class Parameter:
    choices: list[Any] | None = None
    """Values to choose from; or else low and high."""
    low: Any = None
    """Lowest value: an int makes the parameter an int."""
    high: Any = None
    """Highest value, included."""
    log: bool = False
    """Draw on a logarithmic scale."""
    step: Any = None
    """Distance between neighbouring values, from low on."""
    when: dict[str, list[Any]] = field(default_factory=dict)
    """Only if other keys of the space have one of these values: {sleep.n_passes: [2, 3, 4]}."""

    def distribution(self, key: str) -> BaseDistribution:
        """Optuna's distribution. Raises ValueError in one sentence that names the key."""
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError(f"space.{key}: give choices (at least one), or low and high, not both")
            if bad := [c for c in self.choices if not isinstance(c, None | bool | int | float | str)]:
                fix = f'; a list goes in quotes: "{bad[0]}"' if isinstance(bad[0], list) else ""
                raise ValueError(f"space.{key}: choice {bad[0]!r} must be a number, a word, true, false or null{fix}")
            return CategoricalDistribution(self.choices)
        numbers = [self.low, self.high, *([] if self.step is None else [self.step])]
        if any(isinstance(x, bool) or not isinstance(x, int | float) for x in numbers):
            low, high = in_yaml(self.low), in_yaml(self.high)
            raise ValueError(f"space.{key}: low={low} and high={high} must be numbers; or give choices")
        for name, x in zip(("low", "high", "step"), numbers, strict=False):
            check_numbers(f"space.{key}.{name}", x)
        if self.step is not None and not 0 < self.step <= max(self.high - self.low, 0):
            raise ValueError(
                f"space.{key}: step={self.step} must be above 0 and at most high - low = {self.high - self.low}"
            )
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"space.{key}: low={self.low} must be at most high={self.high}" + (" and above 0" if self.log else "")
            )
        if self.log and self.step is not None:
            raise ValueError(f"space.{key}: step={self.step} and log=true exclude each other; drop one")
        if all(isinstance(x, int) for x in numbers):
            return IntDistribution(self.low, self.high, log=self.log, step=1 if self.step is None else self.step)
        width = self.high - self.low
        if not isfinite(width) or (self.step is not None and width / self.step > MOST_STEPS):
            step = "" if self.step is None else f" in steps of {self.step}"
            raise ValueError(
                f"space.{key}: low={self.low} to high={self.high}{step} is too wide; narrow it, or drop step"
            )
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def check_reachable(self, key: str, values: list[Any]) -> None:
        """Raises ValueError if one of the values, or all of none, can never be drawn."""
        for value in values:
            if self.choices is None:
                number = isinstance(value, int | float) and not isinstance(value, bool)
                off = number and self.step and abs((n := (value - self.low) / self.step) - round(n)) > 1e-9
                if not number or not self.low <= value <= self.high or off:
                    raise ValueError(f"{key}={value!r} is never drawn: use values from {self.low} to {self.high}")
            elif value not in self.choices:
                raise ValueError(f"{key}={value!r} is never drawn: use some of {self.choices}")
        if not values:
            raise ValueError(f"{key}=[] never holds: give it values, or drop it")


def read_parameters(types: Mapping[str, Any], space: dict[str, Parameter], written: Any) -> dict[str, Parameter]:
    """Choices, bounds and conditions, read by the types of their keys."""
    meant = {}
    for key, parameter in space.items():
        kind, text = types.get(key, Any), written.get(key) if isinstance(written, dict) else None
        if isinstance(text, dict):
            of = dict.fromkeys(("low", "high", "step"), kind) | {"choices": list[kind]}  # type: ignore[valid-type]
            read = {name: as_meant(of[name], getattr(parameter, name), text[name]) for name in of.keys() & text.keys()}
            conditions = text.get("when")
            if isinstance(conditions, dict):
                read["when"] = {
                    name: as_meant(list[types.get(name, Any)], allowed, conditions.get(name))  # type: ignore[misc]
                    for name, allowed in parameter.when.items()
                }
            parameter = replace(parameter, **read)
        meant[key] = parameter
    return meant


@dataclass(frozen=True)
class Space:
    """Keys that vary; conditional ones are drawn after the keys they depend on.

    Raises:
        ValueError: an empty space, an invalid parameter, or a condition on an unknown key or in a cycle.
    """

    parameters: dict[str, Parameter]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ValueError(
                "space is empty; let at least one key vary, for example sleep.n_passes: {choices: [1, 2, 4]}"
            )
        for key, parameter in self.parameters.items():
            parameter.distribution(key)
            if unknown := parameter.when.keys() - self.parameters.keys():
                others = ", ".join(k for k in self.parameters if k != key)
                fix = f"use one of {others}" if others else "drop it"
                raise ValueError(f"space.{key}: when names {min(unknown)}, which is not in the space; {fix}")
        list(self._ordered())

    def check_conditions(self) -> None:
        """Raises ValueError for one that never holds."""
        for key, parameter in self.parameters.items():
            for other, allowed in parameter.when.items():
                self.parameters[other].check_reachable(f"space.{key}: when {other}", allowed)

    def _ordered(self) -> Iterator[str]:
        done: set[str] = set()
        while len(done) < len(self.parameters):
            ready = [k for k, p in self.parameters.items() if k not in done and p.when.keys() <= done]
            if not ready:
                raise ValueError(f"space: the when of {', '.join(sorted(self.parameters.keys() - done))} form a cycle")
            yield from ready
            done |= set(ready)

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Values of the keys that apply."""
        values: dict[str, Any] = {}
        for key in self._ordered():
            if self._applies(key, values):
                values[key] = _draw(trial, key, self.parameters[key].distribution(key))
        return values

    def _applies(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether the conditions of a key hold, given the values of the keys they are about."""
        return all(values.get(other, _ABSENT) in allowed for other, allowed in self.parameters[key].when.items())

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every key, for an exhaustive search. Raises ValueError for a continuous one."""
        grid: dict[str, Sequence[Any]] = {}
        for key, parameter in self.parameters.items():
            d = parameter.distribution(key)
            if isinstance(d, CategoricalDistribution):
                grid[key] = list(d.choices)
            elif isinstance(d, IntDistribution) and not d.log:
                grid[key] = range(d.low, d.high + 1, d.step)
            else:
                raise ValueError(f"space.{key}: sampler=grid needs choices or whole numbers; list them as choices")
        if (points := prod(map(len, grid.values()))) > MOST_POINTS:
            raise ValueError(
                f"space.{max(grid, key=lambda key: len(grid[key]))}: sampler=grid would list {points} points, and "
                f"{MOST_POINTS} are the most; narrow it, or give a step"
            )
        return {key: list(values) for key, values in grid.items()}

    def points(self) -> list[dict[str, Any]]:
        """The points of the grid, without the keys that do not apply; each once. Raises ValueError as ``grid``."""
        grid, order = self.grid(), list(self._ordered())
        found: dict[str, dict[str, Any]] = {}
        for values in product(*grid.values()):
            point: dict[str, Any] = {}
            whole = dict(zip(grid, values, strict=True))
            for key in order:
                if self._applies(key, point):
                    point[key] = whole[key]
            point = {key: point[key] for key in grid if key in point}
            found.setdefault(repr(point), point)
        return list(found.values())


def written(values: Mapping[str, Any]) -> str:
    """A point for display: keys without their section, values as one writes them in YAML, of numbers four digits."""
    return ", ".join(f"{key.rpartition('.')[2]}={in_yaml(value)}" for key, value in values.items())


def in_yaml(value: Any) -> str:
    """A value for display, as one writes it in YAML; of a number that is not whole, four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


_ABSENT = object()


def _draw(trial: optuna.trial.BaseTrial, key: str, d: BaseDistribution) -> Any:
    if isinstance(d, CategoricalDistribution):
        return trial.suggest_categorical(key, d.choices)
    if isinstance(d, IntDistribution):
        return trial.suggest_int(key, d.low, d.high, step=d.step, log=d.log)
    assert isinstance(d, FloatDistribution)
    return trial.suggest_float(key, d.low, d.high, step=d.step, log=d.log)
