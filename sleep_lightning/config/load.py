"""Reading an experiment: defaults <- YAML <- ``key=value`` arguments."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from sleep_lightning.config.checks import accepted, check_numbers, no_such_key, shown
from sleep_lightning.config.experiment import Experiment
from sleep_lightning.config.init_args import PLUGIN_KEYS, specs_as_meant
from sleep_lightning.config.legacy import add_legacy_defaults
from sleep_lightning.config.plugin_kinds import KindName
from sleep_lightning.config.plugin_model import PluginModel
from sleep_lightning.config.plugin_task import PluginTask
from sleep_lightning.config.plugins import Plugin, find_plugin, instead_of
from sleep_lightning.config.pretrained_model import add_pretrained
from sleep_lightning.config.reading import (
    Argument,
    as_meant,
    first_line,
    hints_of,
    inside,
    is_text,
    parse_yaml,
    without_null,
)
from sleep_lightning.config.references import References, missing_variable
from sleep_lightning.config.schema import parameter_types, schema_of, values_of
from sleep_lightning.config.search_path import home_of
from sleep_lightning.config.suggestions import of_another_task, suggest
from sleep_lightning.config.tracking import TrackingConfig
from sleep_lightning.config.training import TrainingConfig
from sleep_lightning.config.values import NAMES, PLUGIN_SECTIONS, Override, merged_values
from sleep_lightning.model import ModelConfig
from sleep_lightning.names import check_path
from sleep_lightning.redaction import remember_named
from sleep_lightning.sleep import SleepConfig

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "sleep": SleepConfig,
    "training": TrainingConfig,
    "tracking": TrackingConfig,
}
_BUILT = {"task": PluginTask, "model": PluginModel}
_FIRST: dict[str, Any] = dict.fromkeys(NAMES, str | None)
_FIRST["training.search_path"] = list[str]
"""Keys that decide which other keys there are, and their types."""
_WHERE = ("tracking.", "training.run_dir")
"""Beginnings of keys that say where a run goes, not what it is: one can do without them once it is saved."""


class WrongValue(ValueError):
    """A key that does not exist, or a value that it never takes, whatever the other values are."""


def load_experiment(
    config: str | Path | dict[str, Any] | None = None, overrides: Sequence[Override] = (), *, saved: bool = False
) -> Experiment:
    """Merge defaults <- a YAML file (or nested dict) <- changes; interpolation sees the changes.

    A change is a ``key=value`` argument, of which a key that holds text takes exactly what was typed (``null`` is none,
    where the key allows that), or a pair of a key and a value, which is taken as it is.

    Modules of class_paths are looked for on ``sys.path``, in the current directory, beside the YAML file and in
    ``training.search_path``, to which those of these directories that were needed are added.

    Args:
        config: YAML file or nested dict.
        overrides: ``key=value`` arguments.
        saved: it was written by ``Experiment.to_yaml`` or ``to_dict``, maybe of an earlier version: a key that it lacks
            means what was done then (``LEGACY_DEFAULTS``), not the default of today, and its values are plain YAML.

    Raises:
        ValueError: one sentence naming the key, the value and the fix.
    """
    tree, written = (config or {}, None) if isinstance(config, dict | None) else _read_yaml(Path(config))
    values, texts = merged_values(tree, None if saved else written, overrides)
    absent = _take_absent(values) if saved else {}
    if saved:
        add_legacy_defaults(values)
    add_pretrained(values, saved=saved)
    values |= {key: as_meant(kind, values[key], texts.get(key)) for key, kind in _FIRST.items() if key in values}
    search = _search_path(values)
    beside = [] if config is None or isinstance(config, dict) else [Path(config).absolute().parent]
    if not saved:
        _refuse_registered(values.get("task.class_path"), [*search, *beside])
    schema, plugins = _schema(values, [*search, *beside])
    merged = _merge(schema, values, texts, plugins, [*search, *beside])
    raw = cast(dict[str, Any], OmegaConf.to_container(merged))
    for key, value in absent.items():
        section, _, name = key.partition(".")
        raw[section][name] = value
    try:
        for section in map(str, merged):
            _check_numbers(section, merged[section])
        sections = {
            section: _BUILT[section](plugins[section].class_path, values_of(merged[section].init_args))
            if section in plugins
            else OmegaConf.to_object(merged[section])
            for section in map(str, merged)
        }
    except OmegaConfBaseException as error:
        fix = "give it a value" if isinstance(error, MissingMandatoryValue) else "fix the ${...} reference"
        fix = f"set it, or {fix}" if "Environment variable" in str(error) else fix
        raise ValueError(f"{error.full_key}: {first_line(error)}; {fix}") from error
    training = cast(TrainingConfig, sections["training"])
    training.search_path = [*map(str, search), *map(str, beside)]
    experiment = Experiment(**cast(dict[str, Any], sections))
    training.search_path = _needed(experiment, search, [Path.cwd(), *beside])
    missing = {key: missing_variable(value) or "" for key, value in absent.items()}
    plain = experiment.values()
    remember_named(plain)
    experiment.references = References.of(raw, plain, missing)
    return experiment


def _take_absent(values: dict[str, Any]) -> dict[str, Any]:
    """Take out what says where a run goes and refers to a variable that is not set: the default stands for it."""
    there = [key for key, value in values.items() if key.startswith(_WHERE) and missing_variable(value) is not None]
    return {key: values.pop(key) for key in there}


def _search_path(values: dict[str, Any]) -> list[Path]:
    found = values.get("training.search_path") or []
    if not isinstance(found, list) or not all(isinstance(place, str) for place in found):
        raise ValueError(f"training.search_path={found!r} must be a list of directories, such as [/home/me/project]")
    return [Path(place).absolute() for place in found]


def _refuse_registered(class_path: Any, search: list[Path]) -> None:
    """A registered task whose settings are a dataclass has its keys in ``task`` itself."""
    if isinstance(class_path, str) and "." not in class_path:
        target = find_plugin("task", {"class_path": class_path}, "task", search).target
        if dataclasses.is_dataclass(target):
            raise WrongValue(
                f"task.class_path={class_path!r} is the registered name of a task, not an import path; "
                f"write task.name={class_path}"
            )


def _schema(values: dict[str, Any], search: list[Path]) -> tuple[DictConfig, dict[str, Plugin]]:
    """All keys, and the plug-ins that sections consist of."""
    plugins, sections = {}, dict[str, Any](SECTIONS)
    name, class_path = values.get("task.name"), values.get("task.class_path")
    if class_path is None:
        plugin = find_plugin("task", "rule110" if name is None else name, "task.name", search)
        if dataclasses.is_dataclass(plugin.target):
            sections["task"] = schema_of(plugin)
        else:
            values["task.class_path"] = values.pop("task.name")
    elif name is not None:
        raise ValueError(f"task.name={name!r} with task.class_path={class_path!r}: drop one of the two")
    for section in PLUGIN_SECTIONS:
        if (class_path := values.get(f"{section}.class_path")) is not None:
            plugins[section] = find_plugin(cast(KindName, section), {"class_path": class_path}, section, search)
            sections[section] = {"class_path": class_path, "init_args": schema_of(plugins[section])}
    return OmegaConf.create(sections), plugins


def _needed(experiment: Experiment, search: list[Path], places: list[Path]) -> list[str]:
    """``search``, and those of the other places in which a plug-in's module was found."""
    homes = {home_of(path.partition(".")[0]) for _, path in experiment.class_paths()}
    resolved = {home.resolve() for home in homes if home is not None}
    kept = [*search, *(place for place in places if place.resolve() in resolved)]
    return list(dict.fromkeys(map(str, kept)))


def _read_yaml(path: Path) -> tuple[dict[str, Any], Any]:
    where = (
        "a run is resumed with --resume" if os.path.isfile(path / "config.yaml") else "shipped experiments lie in conf/"
    )
    content, written = read_yaml(path, f"--config {path}", where)
    if not isinstance(content, dict):
        what = "an empty file" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"--config {path} must hold sections (task, {', '.join(SECTIONS)}), not {what}")
    if {"base", "space"} & content.keys():
        raise ValueError(f"--config {path} is a sweep (it has a base and a space), no experiment; run: sweep {path}")
    return cast(dict[str, Any], content), written


def read_yaml(path: Path, name: str, where_else: str) -> tuple[Any, Any]:
    """The content of a YAML file: as YAML reads it, and with every scalar as its text (see ``reading.as_meant``).

    Raises:
        ValueError: it cannot be read; begins with ``name``.
    """
    check_path(name.partition(" ")[0], path)
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}; {where_else}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8") from error
    except (YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        raise ValueError(f"{name} is not valid YAML: {reason}; correct it") from error


def _merge(
    schema: DictConfig, values: dict[str, Any], texts: dict[str, Any], plugins: dict[str, Plugin], search: list[Path]
) -> DictConfig:
    known = [f"{section}.{key}" for section in map(str, schema) for key in map(str, schema[section])]
    for section, plugin in plugins.items():
        known.remove(f"{section}.init_args")
        known += [f"{section}.init_args.{name}" for name in plugin.takes()]
    for key, value in values.items():
        section, *names = key.split(".")
        of = plugins.get(section) if len(names) > 1 and names[0] == "init_args" else None
        top = ".".join([section, *names[:2]]) if of else key  # an init_arg may be nested
        if not names and section in schema:
            raise WrongValue(
                f"{section}={shown(value, None)} is no section: give it keys, for example "
                f"{next(one for one in known if one.startswith(section))}, or leave it out"
            )
        if top not in known and not (of and of.takes_anything):
            fix = instead_of(of, names[1]) if of else of_another_task(key, values)
            fix = fix or suggest(key, [*known, *(f"{one}.init_args" for one in plugins)])
            raise WrongValue(no_such_key(key, value, fix))
        kind, text = _kind_of(schema, plugins, key), texts.get(key)
        meant = specs_as_meant(key, value, text, search) if key in PLUGIN_KEYS else as_meant(kind, value, text)
        if MISSING in (meant.values() if isinstance(meant, dict) else meant if isinstance(meant, list) else [meant]):
            raise WrongValue(f"{key}=??? stands for a value that is still to be given; give it one, or leave it out")
        if isinstance(text, Argument) and text.error and not is_text(kind):
            raise WrongValue(str(text.refused(key)))
        try:
            OmegaConf.update(schema, key, meant, force_add=of is not None)
        except OmegaConfBaseException as error:
            default = None if of else OmegaConf.select(schema, key)
            wanted = f"must be {accepted(kind, default)}"
            if isinstance(error, GrammarParseError):
                wanted = (
                    f"holds a ${{...}} reference that cannot be read ({first_line(error)}); write \\${{ for a plain one"
                )
            raise WrongValue(f"{key}={shown(meant, text)} {wanted}") from error
    return schema


def key_types(experiment: Experiment, keys: Iterable[str]) -> dict[str, Any]:
    """The types of keys of an experiment, of those of plug-ins too; without those that it has not."""
    types: dict[str, Any] = {}
    for section, content in experiment.sections.items():
        if isinstance(content, PluginTask | PluginModel):
            types |= {f"{section}.init_args.{name}": kind for name, kind in parameter_types(content.plugin).items()}
        else:
            types |= {f"{section}.{name}": kind for name, kind in hints_of(type(content)).items()}
    for kind, spec, key in experiment.plugins():
        if any(one.startswith(f"{key}.init_args.") for one in keys):
            plugin = find_plugin(kind, spec, key, experiment.training.search_path)
            types |= {f"{key}.init_args.{name}": of for name, of in parameter_types(plugin).items()}
    return types


def _kind_of(schema: DictConfig, plugins: dict[str, Plugin], key: str) -> Any:
    """The type of a key; Any where it is not known."""
    section, *names = key.split(".")
    kind = OmegaConf.get_type(schema[section])
    if section in plugins and names[0] == "init_args" and names[1:]:
        kind, names = parameter_types(plugins[section]).get(names[1], Any), names[2:]
    for name in names:
        kind = inside(without_null(kind), name)
    return kind


def _check_numbers(section: str, node: DictConfig) -> None:
    """A class of the user's may take any number; of its config dataclass, the ranges hold."""
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    kind, init_args = OmegaConf.get_type(node), values.pop("init_args", None)
    try:
        check_numbers(section, values, kind)
        if init_args is not None:
            of = OmegaConf.get_type(node.init_args)
            bounded = {f.name for f in dataclasses.fields(of) if f.metadata} if dataclasses.is_dataclass(of) else set()
            check_numbers(f"{section}.init_args", {name: init_args[name] for name in bounded & init_args.keys()}, of)
    except ValueError as error:
        raise WrongValue(str(error)) from error


def type_name(annotation: Any) -> str:
    """How a type is shown to users: ``int``, ``int or null``, ``one of none, window, pass``.

    Keys of any type are those of plug-ins.
    """
    plugins = {Any: "name or class_path", list[Any]: "list of names or class_paths"}
    plugins[dict[str, Any]] = "mapping"
    if annotation in plugins:
        return plugins[annotation]
    if getattr(annotation, "__origin__", None) is Literal:
        return "one of " + ", ".join(map(str, annotation.__args__))
    text = annotation.__name__ if isinstance(annotation, type) and "[" not in str(annotation) else str(annotation)
    return text.replace(" | None", " or null")
