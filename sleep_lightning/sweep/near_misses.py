"""A sweep's file that is almost one: what is missing, or written as other tools have it."""

from pathlib import Path
from typing import Any

EXAMPLE = {"name": "my_sweep", "base": "../conf/depo.yaml", "space": "{sleep.n_passes: {choices: [1, 2, 4]}}"}
"""Keys that a sweep needs, each with what may stand there."""


def looks_like_experiment(content: dict[str, Any]) -> bool:
    """Whether a file has sections of an experiment."""
    return bool(content.keys() & {"task", "model", "sleep", "training"})


MEANT = {"values": "choices", "options": "choices", "choice": "choices", "min": "low", "max": "high"}
"""Words of other tools for the keys of a parameter."""


def check_near_misses(content: dict[str, Any]) -> None:
    """What is written as other tools have it. Raises ValueError, with what it is here."""
    space = content.get("space")
    for key, parameter in space.items() if isinstance(space, dict) else ():
        if isinstance(parameter, list):
            raise ValueError(f"space.{key}={parameter} must be a mapping; write {{choices: {parameter}}}")
        for name in parameter if isinstance(parameter, dict) else ():
            if (meant := MEANT.get(name)) is not None:
                raise ValueError(f"space.{key}.{name}: there is no such key; did you mean {meant}?")


def check_base(base: str, folder: Path) -> None:
    """Raises ValueError if the experiment of a sweep's file is not there."""
    if "${" not in base and not (folder / base).exists():
        raise ValueError(f"base={base!r}: there is no {folder / base}; base is relative to the folder of this file")
