"""Plug-ins: classes that a YAML names by ``class_path`` and ``init_args`` (jsonargparse's convention), or by a name.

Registered names are those built in, and entry points of installed packages, in the group of the kind (a package's
``pyproject.toml``: ``[project.entry-points."sleep_lightning.tasks"] reverse = "my_package.tasks:Reverse"``). Only what
is asked for is imported.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sleep_lightning.config.checks import did_you_mean, no_such_key
from sleep_lightning.config.plugin_kinds import KINDS, Kind, KindName
from sleep_lightning.config.search_path import described, import_from

_SPEC = ("class_path", "init_args")
_SHAPE = "a registered name, or {class_path: package.module.Class, init_args: {...}}"


class CannotBuild(ValueError):
    """A plug-in that its class does not build from these ``init_args``. Its text is one sentence."""


@dataclass(frozen=True)
class Plugin:
    """An imported plug-in: the class or function, and the arguments that the YAML gives it.

    Attributes:
        kind: what it is for.
        key: of the YAML, for errors.
        named: key and value, for errors.
        class_path: as it was given: an import path or a registered name.
        init_args: keyword arguments.
        target: the class or function.
    """

    kind: KindName
    key: str
    named: str
    class_path: str
    init_args: dict[str, Any]
    target: Callable[..., Any]

    def takes(self) -> list[str]:
        """Names of the ``init_args`` that it takes."""
        return list(self.parameters())

    def needs(self) -> list[str]:
        """Those without a default."""
        return [name for name, p in self.parameters().items() if p.default is p.empty and name not in self._offered]

    @property
    def takes_anything(self) -> bool:
        """Whether it takes others, too (``**kwargs``)."""
        return any(p.kind is p.VAR_KEYWORD for p in _parameters(self.target))

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Those of its parameters that ``init_args`` may set."""
        parameters = _parameters(self.target)
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        taken = {*named[: KINDS[self.kind].given], *KINDS[self.kind].fixed}
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {p.name: p for p in parameters if p.name not in taken and p.kind in kinds}

    @property
    def _offered(self) -> tuple[str, ...]:
        return KINDS[self.kind].offered

    @contextmanager
    def building(self) -> Iterator[None]:
        """Turns whatever its code raises into ``CannotBuild``."""
        try:
            yield
        except ValueError as error:
            raise CannotBuild(f"{self.named}: {' '.join(str(error).split())}") from error
        except Exception as error:
            raise CannotBuild(f"{self.named} cannot be built: {described(error)}") from error

    def build(self, *arguments: Any, **offered: Any) -> Any:
        """Call it.

        Args:
            *arguments: positional arguments, before ``init_args``.
            **offered: keyword arguments, given if it takes them and ``init_args`` does not have them.

        Raises:
            CannotBuild: it refuses its arguments, raises, or returns something of another kind.
        """
        known = [p.name for p in _parameters(self.target)]
        taken = {name: x for name, x in offered.items() if self.takes_anything or name in known}
        with self.building():
            made = self.target(*arguments, **(taken | self.init_args))
        if not isinstance(self.target, type) and (reason := _why_not(KINDS[self.kind], type(made))) is not None:
            raise CannotBuild(f"{self.named} returns a {type(made).__name__}, which {reason}")
        return made


def find_plugin(kind: KindName, spec: Any, key: str, search: Iterable[str | Path] = ()) -> Plugin:
    """Import what a spec names and check its type.

    Args:
        kind: what it is for.
        spec: a registered name, or a mapping of ``class_path`` (import path or registered name) and ``init_args``.
        key: of the YAML, for errors.
        search: directories to look for modules in after ``sys.path`` and the current directory.

    Raises:
        ValueError: one sentence naming the key, the value and the fix.
    """
    class_path, init_args = read_spec(spec, key)
    named = f"{key}={spec!r}" if isinstance(spec, str) else f"{key}.class_path={class_path!r}"
    target = _find(kind, class_path, named, search)
    if not callable(target):
        raise ValueError(f"{named} is a {type(target).__name__}; name a class")
    reason = _why_not(KINDS[kind], target) if isinstance(target, type) else None
    if not isinstance(target, type) and not KINDS[kind].function:
        reason = "is a function; name a class"
    if reason is not None:
        raise ValueError(f"{named} {reason}")
    return Plugin(kind, key, named, class_path, init_args, target)


def load_plugin(kind: KindName, spec: Any, key: str, search: Iterable[str | Path] = ()) -> Plugin:
    """``find_plugin``, with ``init_args`` checked against what the class or function takes."""
    plugin = find_plugin(kind, spec, key, search)
    if not plugin.takes_anything:
        for name, value in plugin.init_args.items():
            if name not in plugin.takes():
                unknown = f"{key}.init_args.{name}"
                raise ValueError(no_such_key(unknown, value, instead_of(plugin, name)))
    if missing := [name for name in plugin.needs() if name not in plugin.init_args]:
        raise ValueError(f"{plugin.named} needs {key}.init_args.{missing[0]}; give it a value")
    return plugin


def resolve(
    kind: KindName, spec: Any, *arguments: Any, key: str, search: Iterable[str | Path] = (), **offered: Any
) -> Any:
    """Build what a spec names: ``load_plugin(kind, spec, key, search).build(*arguments, **offered)``."""
    return load_plugin(kind, spec, key, search).build(*arguments, **offered)


def checked_plugin(kind: KindName, spec: Any, key: str, search: Iterable[str | Path] = ()) -> Plugin | None:
    """``load_plugin``, for its errors.

    None for a built-in one without ``init_args``, which is not imported, unless it is a callback: some of those need
    arguments.
    """
    class_path, init_args = read_spec(spec, key)
    if init_args or kind == "callback" or class_path not in KINDS[kind].names:
        return load_plugin(kind, spec, key, search)
    return None


def read_spec(spec: Any, key: str) -> tuple[str, dict[str, Any]]:
    """``class_path`` and ``init_args`` of a spec. Raises ValueError if it has another shape."""
    if isinstance(spec, str) and spec:
        return spec, {}
    if not isinstance(spec, Mapping):
        raise ValueError(f"{key}={spec!r} is not {_SHAPE}")
    for name, value in spec.items():
        if name not in _SPEC:
            fix = did_you_mean(str(name), _SPEC, f"{key}.") or f"use {' and '.join(_SPEC)}"
            raise ValueError(no_such_key(f"{key}.{name}", value, fix))
    class_path, init_args = spec.get("class_path"), spec.get("init_args")
    names = {} if init_args is None else init_args
    if not isinstance(class_path, str):
        raise ValueError(f"{key} has no class_path: it must be {_SHAPE}")
    if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key}.init_args must be a mapping of names to values: {key} is {_SHAPE}")
    return class_path, dict(names)


def import_path(target: type) -> str:
    """Module and name of a class."""
    return f"{target.__module__}.{target.__qualname__}"


def is_registered(kind: KindName, name: str, target: type) -> bool:
    """Whether a registered name stands for a class."""
    path = _registered_path(kind, name)
    return path is not None and (path == import_path(target) or load_plugin(kind, name, kind).target is target)


def _find(kind: KindName, class_path: str, named: str, search: Iterable[str | Path]) -> Any:
    path = class_path if "." in class_path else _registered_path(kind, class_path)
    if path is None:
        raise ValueError(f"{named} is unknown; {_unknown(kind, class_path)}")
    module_name, _, attribute = path.rpartition(".")
    module = import_from(module_name, search, named)
    if hasattr(module, attribute):
        return getattr(module, attribute)
    if module_name == "__main__":
        raise ValueError(
            f"{named} is defined in a notebook or script, which no other process can import; move it to a file and "
            f"give its class_path, for example my_module.{attribute}"
        )
    fix = did_you_mean(attribute, dir(module)) or "correct the name"
    raise ValueError(f"{named}: {getattr(module, '__file__', None) or module_name} has no {attribute!r}; {fix}")


def _registered_path(kind: KindName, name: str) -> str | None:
    """The import path under a registered name; None if there is no such name."""
    if name in KINDS[kind].names:
        return KINDS[kind].names[name]
    found = entry_points(group=KINDS[kind].group, name=name)
    return next(iter(found)).value.replace(":", ".").partition(" ")[0] if found else None


def _unknown(kind: KindName, name: str) -> str:
    known = [*KINDS[kind].names, *sorted(entry_points(group=KINDS[kind].group).names - KINDS[kind].names.keys())]
    names = f"one of {', '.join(known)}, or " if known else ""
    return did_you_mean(name, known) or f"use {names}package.module.Class"


def _why_not(kind: Kind, target: type) -> str | None:
    """Why a class is none of the kind. Bases are compared by name: no library is imported for it."""
    if "torch.optim.lr_scheduler.ReduceLROnPlateau" in map(import_path, target.__mro__):
        return "steps by a metric, and schedules are stepped after every step without one; use another"
    if kind.base is not None:
        if kind.base in map(import_path, target.__mro__):
            return None
        return f"does not inherit from {kind.base.replace('.optimizer.', '.')}; name a class that does"
    if kind.group == KINDS["task"].group and dataclasses.is_dataclass(target) and hasattr(target, "build"):
        return None
    missing = [name for name in kind.methods if not hasattr(target, name)]
    missing += sorted(getattr(target, "__abstractmethods__", ()))
    if not missing:
        return None
    parents = {
        "sleep_lightning.tasks": "inherit from sleep_lightning.tasks.Task and implement it",
        "sleep_lightning.models": "inherit from torch.nn.Module and sleep_lightning.model.WindowModel and implement it",
    }
    return f"has no method {missing[0]!r}; {parents.get(kind.group, 'implement it')}"


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except (ValueError, TypeError):  # written in C: it says itself what it does not take
        return [inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)]


def instead_of(plugin: Plugin, name: str) -> str:
    """What to write for an ``init_args`` key that it does not take."""
    if (question := did_you_mean(name, plugin.takes(), f"{plugin.key}.init_args.")) is not None:
        return question
    return f"{plugin.class_path} takes {', '.join(plugin.takes()) or 'none'}"
