"""What a value must be: its type, finite numbers, ranges; and how that is said."""

import dataclasses
import math
from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from omegaconf import MISSING

from sleep_lightning.config.reading import INT64, Argument, hints_of, inside, is_optional, is_union, without_null


def shown(value: Any, written: Any) -> str:
    """A value as the user wrote it, for messages."""
    return written.text if isinstance(written, Argument) else "null" if value is None else repr(value)


def check_type(kind: Any, value: Any, key: str = "") -> None:
    """Raises ValueError, naming the place, if plain containers do not fit a dataclass's or another type."""
    plain = without_null(kind)
    if plain is Any or (isinstance(value, str) and "${" in value) or (value is None and is_optional(kind)):
        return
    fits = not isinstance(plain, type) or isinstance(value, (int, float) if plain is float else plain)
    if get_origin(plain) is Literal:
        fits = value in get_args(plain)
    elif dataclasses.is_dataclass(plain) or get_origin(plain) is dict:
        fits = isinstance(value, dict)
    elif get_origin(plain) is list:
        fits = isinstance(value, list)
    if not fits or (isinstance(value, bool) and plain in (int, float)):
        raise ValueError(f"{key}={shown(value, None)} must be {accepted(kind)}")
    for name, x in value.items() if isinstance(value, dict) else ():
        place = f"{key}.{name}" if key else str(name)
        if dataclasses.is_dataclass(plain) and name not in hints_of(plain):
            raise ValueError(f"{place!r}: there is no such key; the keys are {', '.join(hints_of(plain))}")
        check_type(inside(plain, name), x, place)
    for i, x in enumerate(value) if isinstance(value, list) else ():
        check_type(get_args(plain)[0], x, f"{key}[{i}]")


def accepted(kind: Any, default: Any = None) -> str:
    """What a key of that type takes, for messages: ``a whole number, such as 64``."""
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    names |= {Any: "a name or class_path", list[Any]: "a list"}
    if kind in names:
        text = names[kind]
    elif is_union(kind):
        text = " or ".join(accepted(one) for one in get_args(kind))
    elif get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    elif get_origin(kind) in (list, tuple):
        text = f"a list, each item {accepted(get_args(kind)[0])}"
    elif dataclasses.is_dataclass(kind):
        text = f"a mapping of {', '.join(hints_of(kind))}"
    else:
        text = "a mapping"
    plain = default is not None and not isinstance(default, bool) and default not in ([], {}, MISSING)
    return f"{text}, such as {default}" if plain and kind is not Any else text


def check_numbers(where: str, value: Any, ranges: Any = None) -> None:
    """Every number must be finite and fit into 64 bits, and be in the range that its field's ``metadata`` gives.

    Args:
        where: the key.
        value: what it holds, plain containers.
        ranges: ``metadata`` of the field: ``low`` and ``high``, both included, of it and of what it contains.

    Raises:
        ValueError: naming the key and the number.
    """
    low, high = (ranges or {}).get("low", -INT64 - 1), (ranges or {}).get("high", INT64)
    for name, number in _numbers(where, value):
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{name}={number} must be a finite number")
        if isinstance(number, int) and not low <= number <= high:
            raise ValueError(
                f"{name}={number} must be " + (f"from {low} to {high}" if ranges else "of at most 64 bits")
            )


def _numbers(where: str, value: Any) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, dict):
        for key, x in value.items():
            yield from _numbers(f"{where}.{key}", x)
    elif isinstance(value, list | tuple):
        for i, x in enumerate(value):
            yield from _numbers(f"{where}[{i}]", x)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield where, value
