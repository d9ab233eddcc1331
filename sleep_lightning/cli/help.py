"""Every key of an experiment with its type, default and one line, read from the dataclasses themselves."""

import ast
import dataclasses
import difflib
import inspect
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any, get_type_hints

from sleep_lightning.cli.commands import COMMANDS
from sleep_lightning.compare.arms import ARMS
from sleep_lightning.config import SECTIONS, type_name
from sleep_lightning.config.plugins import find_plugin
from sleep_lightning.tasks import TASKS


def attribute_docstrings(config: type[Any]) -> dict[str, str]:
    """The string under each attribute of a dataclass, inherited ones included."""
    docs: dict[str, str] = {}
    for parent in config.__bases__:
        if dataclasses.is_dataclass(parent):
            docs |= attribute_docstrings(parent)
    body = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    assert isinstance(body, ast.ClassDef)
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


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of an experiment.

    Attributes:
        section: its section; for a task, which task.
        name: as YAML files and arguments have it: ``sleep.n_passes``.
        default: as YAML has it.
        kind: its type.
        text: what it does.
    """

    section: str
    name: str
    default: str
    kind: str
    text: str


OWN = {
    "task": "a Task of your own or of its config dataclass, instead of task.name and the task's keys",
    "model": "a WindowModel of your own, instead of the other keys of the section",
}
"""Sections that may be a class of the user's."""


def keys() -> Iterator[Key]:
    """All keys, section by section."""
    configs: dict[str, Any] = {f"task (task.name={name})": task_config(name) for name in TASKS} | SECTIONS
    for section, config in configs.items():
        docs, hints = attribute_docstrings(config), get_type_hints(config)
        for field in dataclasses.fields(config):
            default = default_of(field)
            shown = {None: "null", True: "true", False: "false"}.get(default, default) if _plain(default) else default
            name = f"{section.split()[0]}.{field.name}"
            yield Key(section, name, str(shown), type_name(hints[field.name]), docs[field.name])
    for section, made in OWN.items():
        of = f"{section} ({section}.class_path=...)"
        yield Key(of, f"{section}.class_path", "null", "str or null", f"Import path of {made}.")
        text = f"Its arguments, each of which is a key: {section}.init_args.NAME=value."
        yield Key(of, f"{section}.init_args", "{}", "mapping", text)


def section_lines() -> Iterator[str]:
    """A line for each section: how many keys, and how to see them; the tasks share theirs."""
    counts = {section: len(list(entries)) for section, entries in groupby(keys(), lambda key: key.section)}
    tasks = ", ".join(f"{name} {counts.pop(f'task (task.name={name})')}" for name in TASKS)
    yield textwrap.fill(f"keys by task.name: {tasks}", 78, initial_indent="  task      ", subsequent_indent=" " * 14)
    for section, n in counts.items():
        name, _, of = section.partition(" ")
        yield f"  {name:<9} {n:>3} keys {of}".rstrip()
    yield "help SECTION lists them, help KEY explains one, help all prints all"


def explain(what: str) -> Iterator[str]:
    """A key, a section's keys, ``all``, or the ``arms`` of comparisons. Raises ValueError for anything else."""
    if what == "arms":
        yield from _arms()
        return
    known = list(keys())
    found = [key for key in known if what in ("all", key.name, key.section.split()[0])]
    if not found and "." not in what:  # max_steps
        found = [key for key in known if key.name.partition(".")[2] == what]
    if not found:
        names = [key.name for key in known]
        close = nearest_key(what)
        if what in COMMANDS:
            raise ValueError(f"help {what}: that is a command; see python -m sleep_lightning {what} --help")
        hint = f"did you mean {close}?" if close else f"sections are {', '.join(dict.fromkeys(map(_section, names)))}"
        raise ValueError(f"help {what}: there is no such key or section; {hint}")
    for section, entries in groupby(found, lambda key: key.section):
        yield f"{section}:"
        for key in entries:
            yield f"  {key.name} = {key.default}  ({key.kind})"
            yield textwrap.fill(key.text, 100, initial_indent="      ", subsequent_indent="      ")


def nearest_key(name: str, cutoff: float = 0.6) -> str | None:
    """The key of that name in any section, or the one closest to it; None if none is as close as that."""
    known = [key.name for key in keys()]
    last = name.rpartition(".")[2]
    whole = [key for key in known if key.rpartition(".")[2] == last]
    if whole:
        return whole[0]
    by_last = {key.rpartition(".")[2]: key for key in known}
    close = difflib.get_close_matches(last, by_last, n=1, cutoff=cutoff)
    return by_last[close[0]] if close else None


def _arms() -> Iterator[str]:
    yield "arms of compare (--arms):"
    for name, about in {"n1, n2, ...": "N passes", **{name: about for name, (about, _) in ARMS.items()}}.items():
        yield textwrap.fill(f"{name:<15} {about}", 100, initial_indent="  ", subsequent_indent=" " * 18)


def _section(key: str) -> str:
    return key.partition(".")[0]


def _plain(default: Any) -> bool:
    return default is None or isinstance(default, bool)
