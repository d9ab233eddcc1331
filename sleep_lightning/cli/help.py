"""Every key of an experiment with its type, default and one line, read from the dataclasses themselves."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_type_hints

from sleep_lightning.config import SECTIONS, type_name
from sleep_lightning.config.plugins import find_plugin
from sleep_lightning.tasks import TASKS


def attribute_docstrings(config: type[Any]) -> dict[str, str]:
    """The string under each attribute of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for attribute, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(attribute, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(attribute.target, ast.Name)
            assert isinstance(below.value, ast.Constant)
            docs[attribute.target.id] = " ".join(str(below.value.value).split())
    return docs


def default_of(field: "dataclasses.Field[Any]") -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def task_config(name: str) -> Any:
    """The config dataclass of a registered task."""
    return find_plugin("task", name, "task.name").target


def key_lines() -> Iterator[str]:
    """One paragraph a section, one entry a key."""
    tasks: dict[str, Any] = {f"task (task.name={name})": task_config(name) for name in TASKS}
    for section, config in (tasks | SECTIONS).items():
        docs, hints = attribute_docstrings(config), get_type_hints(config)
        yield f"\n{section}:"
        for field in dataclasses.fields(config):
            key = f"{section.split()[0]}.{field.name}"
            default = default_of(field)
            shown = {None: "null", True: "true", False: "false"}.get(default, default) if _plain(default) else default
            yield f"  {key} = {shown}  ({type_name(hints[field.name])})"
            yield textwrap.fill(docs[field.name], 100, initial_indent="      ", subsequent_indent="      ")


def _plain(default: Any) -> bool:
    return default is None or isinstance(default, bool)
