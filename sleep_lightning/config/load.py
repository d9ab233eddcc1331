"""Reading an experiment: defaults <- YAML <- ``key=value`` arguments."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from sleep_lightning.config.experiment import Experiment
from sleep_lightning.config.plugin_task import PluginTask, schema_of
from sleep_lightning.config.plugins import Plugin, find_plugin, read_spec
from sleep_lightning.config.search_path import home_of
from sleep_lightning.config.tracking import TrackingConfig
from sleep_lightning.config.training import TrainingConfig
from sleep_lightning.config.values import INIT_ARGS, first_line, merged_values
from sleep_lightning.model import ModelConfig
from sleep_lightning.sleep import SleepConfig

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "sleep": SleepConfig,
    "training": TrainingConfig,
    "tracking": TrackingConfig,
}


def load_experiment(config: str | Path | dict[str, Any] | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """Merge defaults <- a YAML file (or nested dict) <- ``key=value`` arguments; interpolation sees the overrides.

    Modules of class_paths are looked for on ``sys.path``, in the current directory, beside the YAML file and in
    ``training.search_path``, to which those of these directories that were needed are added.

    Raises:
        ValueError: one sentence naming the key, the value and the fix.
    """
    tree = {} if config is None else config if isinstance(config, dict) else _read_yaml(Path(config))
    values = merged_values(tree, overrides)
    search = _search_path(values)
    beside = [] if config is None or isinstance(config, dict) else [Path(config).absolute().parent]
    task, plugin = _task_schema(values, [*search, *beside])
    merged = _merge(OmegaConf.create({"task": task} | SECTIONS), values, plugin)
    try:
        sections = {section: OmegaConf.to_object(merged[section]) for section in SECTIONS}
        sections["task"] = _plugin_task(merged, plugin.class_path) if plugin else OmegaConf.to_object(merged.task)
    except OmegaConfBaseException as error:
        fix = "give it a value" if isinstance(error, MissingMandatoryValue) else "fix the ${...} reference"
        raise ValueError(f"{error.full_key}: {first_line(error)}; {fix}") from error
    training = cast(TrainingConfig, sections["training"])
    training.search_path = [*map(str, search), *map(str, beside)]
    experiment = Experiment(**cast(dict[str, Any], sections))
    training.search_path = _needed(experiment, search, [Path.cwd(), *beside])
    return experiment


def _search_path(values: dict[str, Any]) -> list[Path]:
    found = values.get("training.search_path") or []
    if not isinstance(found, list) or not all(isinstance(place, str) for place in found):
        return []  # refused with the key's type
    return [Path(place).absolute() for place in found]


def _task_schema(values: dict[str, Any], search: list[Path]) -> tuple[Any, Plugin | None]:
    """The keys of section ``task``, and the plug-in if they are those of a ``PluginTask``."""
    name, class_path = values.get("task.name"), values.get("task.class_path")
    if class_path is None:
        plugin = find_plugin("task", "rule110" if name is None else name, "task.name", search)
        if dataclasses.is_dataclass(plugin.target):
            return schema_of(plugin), None
        class_path = values["task.class_path"] = values.pop("task.name")
    elif name is not None:
        raise ValueError(f"task.name={name!r} with task.class_path={class_path!r}: drop one of the two")
    plugin = find_plugin("task", {"class_path": class_path}, "task", search)
    return {"class_path": class_path, "init_args": schema_of(plugin)}, plugin


def _plugin_task(merged: DictConfig, class_path: str) -> PluginTask:
    init_args = cast(dict[str, Any], OmegaConf.to_container(merged.task.init_args, resolve=True))
    return PluginTask(class_path, {name: value for name, value in init_args.items() if value != MISSING})


def _needed(experiment: Experiment, search: list[Path], places: list[Path]) -> list[str]:
    """``search``, and those of the other places in which a plug-in's module was found."""
    class_paths = [read_spec(spec, key)[0] for _, spec, key in experiment.plugins()]
    if isinstance(experiment.task, PluginTask):
        class_paths.append(experiment.task.class_path)
    homes = {home_of(path.partition(".")[0]) for path in class_paths if "." in path}
    resolved = {home.resolve() for home in homes if home is not None}
    kept = [*search, *(place for place in places if place.resolve() in resolved)]
    return list(dict.fromkeys(map(str, kept)))


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_yaml(path, f"--config {path}", "shipped experiments lie in conf/")
    if not isinstance(content, dict):
        raise ValueError(
            f"--config {path} must hold sections (task, {', '.join(SECTIONS)}), not a {type(content).__name__}"
        )
    return cast(dict[str, Any], content)


def read_yaml(path: Path, name: str, where_else: str) -> Any:
    """The content of a YAML file. Raises ValueError, beginning with ``name``, if it cannot be read."""
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}; {where_else}") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error


def _merge(schema: DictConfig, values: dict[str, Any], task: Plugin | None) -> DictConfig:
    known = [f"{section}.{key}" for section in map(str, schema) for key in map(str, schema[section])]
    if task is not None:
        known = [key for key in known if key != INIT_ARGS] + [f"{INIT_ARGS}.{name}" for name in task.takes()]
    for key, value in values.items():
        of_task = key.startswith(f"{INIT_ARGS}.") and task is not None
        top = ".".join(key.split(".")[:3]) if of_task else key  # an init_arg may be nested
        if top not in known and not (of_task and task is not None and task.takes_anything):
            takes = f"{task.class_path} takes {', '.join(task.takes()) or 'none'}" if of_task and task else None
            raise ValueError(f"{key}={value!r}: there is no key {key!r}; {_suggest(key, known, takes)}")
        try:
            OmegaConf.update(schema, key, value, force_add=of_task)
        except OmegaConfBaseException as error:
            parent, _, name = top.rpartition(".")
            kind = get_type_hints(cast(type, OmegaConf.get_type(OmegaConf.select(schema, parent)))).get(
                name, "such a value"
            )
            raise ValueError(f"{key}={value!r} is not {type_name(kind)}; {first_line(error)}") from error
    return schema


def type_name(annotation: Any) -> str:
    """How a type is shown to users: ``int``, ``int or null``, ``one of none, window, pass``.

    Keys of any type are those of plug-ins.
    """
    if annotation in (Any, list[Any]):
        return "name or class_path" if annotation is Any else "list of names or class_paths"
    if getattr(annotation, "__origin__", None) is Literal:
        return "one of " + ", ".join(map(str, annotation.__args__))
    text = annotation.__name__ if isinstance(annotation, type) and "[" not in str(annotation) else str(annotation)
    return text.replace(" | None", " or null")


def _suggest(key: str, known: list[str], otherwise: str | None = None) -> str:
    close = difflib.get_close_matches(key, known, n=1) or [k for k in known if k.endswith(f".{key.split('.')[-1]}")]
    if close:
        return f"did you mean {close[0]}?"
    return otherwise or "python -m sleep_lightning --help lists all keys"
