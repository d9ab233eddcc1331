"""Keys, types and defaults of a plug-in's ``init_args``, so that they are checked as those of the package's own."""

import dataclasses
import inspect
from contextlib import suppress
from copy import copy
from dataclasses import field, make_dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sleep_lightning.config.checks import accepted
from sleep_lightning.config.plugins import Plugin
from sleep_lightning.config.reading import literal


def schema_of(plugin: Plugin) -> DictConfig:
    """The fields of a dataclass, or the parameters of a constructor that are left to ``init_args``.

    A parameter whose type a YAML cannot hold takes any value; one whose default it cannot hold is absent unless it is
    given a value.

    Raises:
        ValueError: a dataclass with a field that a YAML cannot hold.
    """
    if dataclasses.is_dataclass(plugin.target):
        try:
            return cast(DictConfig, OmegaConf.structured(plugin.target))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{plugin.named}: field {error.full_key}: {reason}; use plain types") from error
    hints, fields = parameter_types(plugin), []
    for name, parameter in plugin.parameters().items():
        default = MISSING if parameter.default is parameter.empty else parameter.default
        for kind in (hints[name], Any):
            one = (name, kind, field(default_factory=partial(copy, default)))
            try:
                OmegaConf.structured(make_dataclass("InitArgs", [one]))
            except OmegaConfBaseException:
                continue
            fields.append(one)
            break
    return cast(DictConfig, OmegaConf.structured(make_dataclass("InitArgs", fields)))


def check_init_args(plugin: Plugin) -> None:
    """Raises ValueError, naming the key, if a value does not fit the annotated type of its parameter."""
    schema = schema_of(plugin)
    for name, value in plugin.init_args.items():
        try:
            OmegaConf.update(schema, name, literal(value), force_add=True)
        except OmegaConfBaseException as error:
            wanted = accepted(parameter_types(plugin).get(name, Any))
            raise ValueError(f"{plugin.key}.init_args.{name}={value!r} must be {wanted}") from error


def values_of(node: DictConfig) -> dict[str, Any]:
    """The values in a schema, interpolations resolved, without those that are still to be given."""
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, enum_to_str=True))
    return {name: value for name, value in values.items() if value != MISSING}


def parameter_types(plugin: Plugin) -> dict[str, Any]:
    """The annotated types of its ``init_args``; Any where there is none, or a name that only type checkers import."""
    target: Any = inspect.unwrap(plugin.target)
    function = target.__init__ if inspect.isclass(target) else target
    annotations, names = getattr(function, "__annotations__", {}), getattr(function, "__globals__", {})
    types = dict.fromkeys(plugin.parameters(), Any)
    for name in types.keys() & annotations.keys():
        with suppress(NameError):
            types |= get_type_hints(SimpleNamespace(__annotations__={name: annotations[name]}), names)
    return types
