"""What a value must be: its type, finite numbers, ranges; and how that is said."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, get_args, get_origin

from omegaconf import MISSING

from sleep_lightning.config.reading import INT64, Argument, hints_of, inside, is_optional, is_union, without_null

_NONE: Mapping[str, Any] = MappingProxyType({})


def shown(value: Any, written: Any) -> str:
    """A value as the user wrote it, for messages."""
    return written.text if isinstance(written, Argument) else "null" if value is None else repr(value)


def no_such_key(key: str, value: Any, fix: str) -> str:
    """The sentence on a key that does not exist; of a mapping or list, what it holds is not repeated."""
    if isinstance(value, Mapping | list):
        return f"{key}: there is no such key; {fix}"
    return f"{key}={value!r}: there is no key {key!r}; {fix}"


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str | None:
    """The known name that is closest to one that does not exist, as a question."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {prefix}{close[0]}?" if close else None


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
            prefix = f"{key}." if key else ""
            fix = did_you_mean(name, hints_of(plain), prefix) or f"the keys are {', '.join(hints_of(plain))}"
            raise ValueError(f"{place!r}: there is no such key; {fix}")
        check_type(inside(plain, name), x, place)
    for i, x in enumerate(value) if isinstance(value, list) else ():
        check_type(get_args(plain)[0], x, f"{key}[{i}]")


def accepted(kind: Any, default: Any = None) -> str:
    """What a key of that type takes, for messages: ``a whole number, such as 64``."""
    names: dict[Any, str] = {
        str: "text",
        Path: "a path",
        bytes: "bytes",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        NoneType: "null",
    }
    names |= {Any: "a name or class_path", list[Any]: "a list"}
    if kind in names:
        text = names[kind]
    elif is_union(kind):
        text = " or ".join(accepted(one) for one in get_args(kind))
    elif get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    elif isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(kind.__members__)}"
    elif get_origin(kind) in (list, tuple):
        text = f"a list, each item {accepted(get_args(kind)[0])}"
    elif dataclasses.is_dataclass(kind):
        text = f"a mapping of {', '.join(hints_of(kind))}"
    else:
        text = kind.__name__ if isinstance(kind, type) and kind is not dict else "a mapping"
    plain = default is not None and not isinstance(default, bool) and default not in ([], {}, MISSING)
    return f"{text}, such as {default}" if plain and kind is not Any else text


def check_numbers(where: str, value: Any, kind: Any = Any, ranges: Mapping[str, Any] = _NONE) -> None:
    """Every number must be finite and fit into 64 bits, and be in the range that its field's ``metadata`` gives.

    It costs no more than the containers are large, and comes before anything is built from their numbers.

    Args:
        where: the key.
        value: what it holds, plain containers.
        kind: its type, for the fields of dataclasses in it.
        ranges: ``metadata`` of its field: ``low`` and ``high``, both included, of it and of what it contains.

    Raises:
        ValueError: naming the key and the number.
    """
    kind = without_null(kind)
    if isinstance(value, dict):
        own = {f.name: f.metadata for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        for name, x in value.items():
            check_numbers(f"{where}.{name}" if where else str(name), x, inside(kind, name), own.get(name) or ranges)
    elif isinstance(value, list | tuple):
        of = get_args(kind)[0] if get_origin(kind) in (list, tuple) else Any
        for i, x in enumerate(value):
            check_numbers(f"{where}[{i}]", x, of, ranges)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(where, value, ranges.get("low", -math.inf), ranges.get("high", math.inf))


def _check_number(where: str, number: int | float, low: float, high: float) -> None:
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{where}={number} must be a finite number")
    if not low <= number <= high:
        raise ValueError(
            f"{where}={number} must be " + (f"at most {high}" if low == -math.inf else f"from {low} to {high}")
        )
    if isinstance(number, int) and not -INT64 - 1 <= number <= INT64:
        raise ValueError(f"{where}={number} must be of at most 64 bits")
