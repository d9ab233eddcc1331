"""References to the environment, ``${oc.env:NAME}``: what is written down holds them as the user wrote them.

Their values may be secrets, or differ from machine to machine. A reference that gives text is kept; numbers are written
as numbers, since a run must keep its own.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

HANDED_OVER = "SLEEP_LIGHTNING_TRACKING_URI"
"""Variable in which a run's parent process gives it a tracking URI; nothing that is written down refers to it."""

_TO_ENVIRONMENT = re.compile(rf"(?<!\\)(?:\\\\)*\$\{{[^}}]*?oc\.env:(?!\s*{HANDED_OVER}\b)")
_VARIABLE = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)\s*(,?)")
_TO_KEY = re.compile(r"\$\{\.*(?:[\w.]*\.)?(\w+)\}")


@dataclass(frozen=True)
class References:
    """Where references to the environment were written.

    Attributes:
        written: nested containers with the text of each, None elsewhere.
        values: what they were, in the same places.
        missing: keys that count only once they are used, and the variables that they lack here.
    """

    written: Any = None
    values: Any = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: Any, values: Any, missing: Mapping[str, str] | None = None) -> "References":
        """From a tree with unresolved references, and the tree of its values."""
        return cls(_kept(raw, _names(raw)), values, missing or {})

    def environment(self) -> dict[str, str]:
        """The variables that are referred to, as far as they are set: what another machine needs to resolve them."""
        return {name: os.environ[name] for name in variables(self.written) if name in os.environ}

    def put(self, current: Any) -> Any:
        """A tree with the references in the place of the values that they gave, where those are unchanged."""
        return _put(current, self.written, self.values)


def refers(text: str) -> bool:
    """Whether a text holds a reference to the environment."""
    return _TO_ENVIRONMENT.search(text) is not None


def variables(value: Any) -> dict[str, bool]:
    """Variables that a value, in whatever depth, refers to, each with whether it can do without."""
    if isinstance(value, str):
        return {name: bool(comma) for name, comma in _VARIABLE.findall(value)} if refers(value) else {}
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {name: optional for one in inner for name, optional in variables(one).items()}


def missing_variable(value: Any) -> str | None:
    """A variable that a value needs and that is not set; None if there is none."""
    return min((k for k, optional in variables(value).items() if not optional and k not in os.environ), default=None)


def resolved(key: str, text: str) -> str:
    """A text with the values of the variables that it refers to. Raises ValueError if one is not set."""
    if not refers(text):
        return text
    if (name := missing_variable(text)) is not None:
        raise ValueError(f"{key} was saved as a reference to the variable {name}; set that")
    return str(OmegaConf.create({"text": text})["text"])


def _names(raw: Any) -> set[str]:
    """Last parts of the keys that depend on the environment, be it through others."""
    leaves, found = dict(_leaves(raw)), set[str]()
    while more := {k for k, text in leaves.items() if k not in found and _depends(text, found)}:
        found |= more
    return found


def _leaves(tree: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(tree, str):
        return [(key, tree)] if "${" in tree else []
    if isinstance(tree, Mapping):
        return [leaf for name, x in tree.items() for leaf in _leaves(x, str(name))]
    return [leaf for x in tree for leaf in _leaves(x, key)] if isinstance(tree, list) else []


def _depends(text: str, names: set[str]) -> bool:
    return refers(text) or not names.isdisjoint(_TO_KEY.findall(text))


def _kept(raw: Any, names: set[str]) -> Any:
    if isinstance(raw, str):
        return raw if _depends(raw, names) else None
    if isinstance(raw, Mapping):
        return {k: kept for k, x in raw.items() if (kept := _kept(x, names)) is not None} or None
    if isinstance(raw, list):
        items = [_kept(x, names) for x in raw]
        return items if any(x is not None for x in items) else None
    return None


def _put(current: Any, written: Any, values: Any) -> Any:
    if isinstance(written, str):
        return written if isinstance(values, str | None) and current == values else current
    if isinstance(written, Mapping) and isinstance(current, Mapping) and isinstance(values, Mapping):
        return {k: _put(x, written.get(k), values.get(k)) for k, x in current.items()}
    lists = isinstance(written, list) and isinstance(current, list) and isinstance(values, list)
    if lists and len(written) == len(current) == len(values):
        return [_put(*three) for three in zip(current, written, values, strict=True)]
    return current
