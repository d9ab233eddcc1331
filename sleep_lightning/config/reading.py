"""How a key's type reads what was written: text stays as it was typed, whole numbers are decimal.

YAML alone would make 7 of ``run_name: 007``, False of ``no`` and 8 of ``seed: 010``.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
INT64 = 2**63 - 1
DEEPEST = 64
"""Containers within each other at most: a compiled parser would crash on very many."""
LARGEST = 1_000_000
"""Values at most, aliases written out: aliases of aliases grow without end."""


class _AsText(LOADER):  # type: ignore[misc, valid-type]
    """Every scalar as its text; anchors and merge keys as in any YAML."""

    yaml_constructors = LOADER.yaml_constructors | {
        f"tag:yaml.org,2002:{name}": LOADER.construct_scalar
        for name in ("null", "bool", "int", "float", "timestamp", "str")
    }


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
    _check_size(text)
    value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])).get("value")  # type: ignore[union-attr]
    return value, yaml.load(text, _AsText)


def _check_size(text: str) -> None:
    sizes: dict[str | None, int] = {}
    outer: list[tuple[str | None, int]] = [(None, 0)]  # containers around: their anchors, and their sizes so far
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            outer.append((event.anchor, 1))
            if len(outer) > DEEPEST + 1:
                raise ValueError(f"more than {DEEPEST} lists and mappings within each other")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = outer.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor, size = None, sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        sizes[anchor] = size
        around, before = outer.pop()
        outer.append((around, before + size))
        if before + size > LARGEST:
            raise ValueError(f"more than {LARGEST} values")


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
    if isinstance(written, Argument):
        if is_text(kind):
            return None if is_optional(kind) and written.text == "null" else written.text
        written = written.written
    if isinstance(written, str):
        return _scalar(kind, value, written)
    kind = without_null(kind)
    if isinstance(value, list) and isinstance(written, list) and len(value) == len(written):
        inner = get_args(kind)[:1] if _holds(kind, Iterable) else ()
        return [as_meant(inner[0] if inner else Any, *pair) for pair in zip(value, written, strict=True)]
    if isinstance(value, dict) and isinstance(written, dict) and len(value) == len(written):
        pairs = zip(value.items(), written.items(), strict=True)
        return {(k if isinstance(k, str) else t): as_meant(inside(kind, t), x, w) for (k, x), (t, w) in pairs}
    return value


def _scalar(kind: Any, value: Any, text: str) -> Any:
    if is_text(kind) and isinstance(value, bool | int | float):
        return text
    kind = without_null(kind)
    if kind in (int, float) and isinstance(value, int | float):
        try:
            return kind(text)
        except ValueError:  # 0x10, .nan; but 1:30 is 90 in YAML, and no is 0
            return text if ":" in text or isinstance(value, bool) else value
    return value


def inside(kind: Any, name: str) -> Any:
    """The type of a value in a mapping."""
    if dataclasses.is_dataclass(kind):
        return hints_of(kind).get(name, Any)
    return get_args(kind)[1] if _holds(kind, Mapping) else Any


def _holds(kind: Any, container: type) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, container)


def hints_of(kind: Any) -> dict[str, Any]:
    """Types of a dataclass's fields."""
    hints: dict[str, Any] = _hints(kind)
    return hints


_hints: Any = lru_cache(maxsize=64)(get_type_hints)


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def is_optional(kind: Any) -> bool:
    return is_union(kind) and NoneType in get_args(kind)


def without_null(kind: Any) -> Any:
    """A type without its ``| None``; Any for several types."""
    kinds = [one for one in get_args(kind) if one is not NoneType] if is_union(kind) else [kind]
    return kinds[0] if len(kinds) == 1 else Any


def is_text(kind: Any) -> bool:
    """Whether a key of that type holds text, or a path."""
    if is_union(kind):
        return all(is_text(one) for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Literal:
        return all(isinstance(one, str) for one in get_args(kind))
    kind = get_origin(kind) or kind
    return kind is str or (isinstance(kind, type) and issubclass(kind, os.PathLike))


def literal(value: Any) -> Any:
    """Plain containers whose strings OmegaConf reads back as they are: none is a ``${...}`` reference."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, list | tuple):
        return type(value)(map(literal, value))
    return {key: literal(x) for key, x in value.items()} if isinstance(value, dict) else value
