"""How a key's type reads what was written: text stays as it was typed, whole numbers are decimal.

YAML alone would make 7 of ``run_name: 007``, False of ``no`` and 8 of ``seed: 010``.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

BASE_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
INT64 = 2**63 - 1


@dataclass(frozen=True)
class Argument:
    """The value of a ``key=value`` argument.

    Attributes:
        text: as it was typed.
        value: as YAML reads it; the text if it is not YAML.
        written: the same, with every scalar as its text.
        error: why it is not YAML.
    """

    text: str
    value: Any
    written: Any
    error: str | None = None

    @classmethod
    def of(cls, text: str) -> "Argument":
        try:
            return cls(text, *parse_yaml(text))
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            return cls(text, text, text, first_line(error))

    def refused(self, key: str) -> ValueError:
        """What to raise where it had to be YAML."""
        return ValueError(f"{key}={self.text} cannot be read: {self.error}; quote the value")


def parse_yaml(text: str) -> tuple[Any, Any]:
    """The content of a YAML, interpolations unresolved: as YAML reads it, and with every scalar as its text."""
    value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])).get("value")  # type: ignore[union-attr]
    return value, yaml.load(text, BASE_LOADER)


def first_line(error: Exception) -> str:
    """The first line of an exception's text."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def as_meant(kind: Any, value: Any, written: Any) -> Any:
    """A value as a key of that type reads it; one of another type stays as YAML reads it, to be refused.

    Args:
        kind: type of the key.
        value: as YAML reads it.
        written: the same, with every scalar as its text; or an ``Argument``.
    """
    optional, kind = _is_optional(kind), _of(kind)
    if isinstance(written, Argument):
        if is_text(kind):
            return None if optional and written.text == "null" else written.text
        written = written.written
    if isinstance(written, str):
        return _scalar(kind, value, written)
    if isinstance(value, list) and isinstance(written, list) and len(value) == len(written):
        inner = get_args(kind)[:1] if get_origin(kind) in (list, tuple) else ()
        return [as_meant(inner[0] if inner else Any, *pair) for pair in zip(value, written, strict=True)]
    if isinstance(value, dict) and isinstance(written, dict) and len(value) == len(written):
        pairs = zip(value.items(), written.items(), strict=True)
        return {(k if isinstance(k, str) else t): as_meant(_inside(kind, t), x, w) for (k, x), (t, w) in pairs}
    return value


def _scalar(kind: Any, value: Any, text: str) -> Any:
    if is_text(kind) and isinstance(value, bool | int | float):
        return text
    if kind in (int, float) and isinstance(value, int | float):
        try:
            return kind(text)
        except ValueError:  # 0x10, .nan; but 1:30 is 90 in YAML, and no is 0
            return text if ":" in text or isinstance(value, bool) else value
    return value


def _inside(kind: Any, name: str) -> Any:
    """The type of a value in a mapping."""
    if dataclasses.is_dataclass(kind):
        return hints_of(kind).get(name, Any)
    return get_args(kind)[1] if get_origin(kind) is dict else Any


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    """Types of a dataclass's fields."""
    return get_type_hints(kind)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_optional(kind: Any) -> bool:
    return _is_union(kind) and NoneType in get_args(kind)


def _of(kind: Any) -> Any:
    """A type without its ``| None``; Any for several types."""
    kinds = [one for one in get_args(kind) if one is not NoneType] if _is_union(kind) else [kind]
    return kinds[0] if len(kinds) == 1 else Any


def is_text(kind: Any) -> bool:
    """Whether a key of that type holds text."""
    kind = _of(kind)
    return kind is str or (get_origin(kind) is Literal and all(isinstance(one, str) for one in get_args(kind)))


def literal(value: Any) -> Any:
    """Plain containers whose strings OmegaConf reads back as they are: none is a ``${...}`` reference."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, list | tuple):
        return type(value)(map(literal, value))
    return {key: literal(x) for key, x in value.items()} if isinstance(value, dict) else value


def shown(value: Any, written: Any) -> str:
    """A value as the user wrote it, for messages."""
    return written.text if isinstance(written, Argument) else "null" if value is None else repr(value)


def check_type(kind: Any, value: Any, key: str = "") -> None:
    """Raises ValueError, naming the place, if plain containers do not fit a dataclass's or another type."""
    plain = _of(kind)
    if plain is Any or (isinstance(value, str) and "${" in value) or (value is None and _is_optional(kind)):
        return
    fits: bool = isinstance(value, {float: (int, float)}.get(plain, plain) if isinstance(plain, type) else object)
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
        check_type(_inside(plain, name), x, place)
    for i, x in enumerate(value) if isinstance(value, list) else ():
        check_type(get_args(plain)[0], x, f"{key}[{i}]")


def accepted(kind: Any, default: Any = None) -> str:
    """What a key of that type takes, for messages: ``a whole number, such as 64``."""
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    names |= {Any: "a name or class_path", list[Any]: "a list"}
    if kind in names:
        text = names[kind]
    elif _is_union(kind):
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
