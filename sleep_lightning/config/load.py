"""Reading an experiment: defaults <- YAML <- ``key=value`` arguments."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sleep_lightning.config.experiment import Experiment
from sleep_lightning.config.tracking import TrackingConfig
from sleep_lightning.config.training import TrainingConfig
from sleep_lightning.model import ModelConfig
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import TASKS

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "sleep": SleepConfig,
    "training": TrainingConfig,
    "tracking": TrackingConfig,
}


def load_experiment(config: str | Path | dict[str, Any] | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """Merge defaults <- a YAML file (or nested dict) <- ``key=value`` arguments; interpolation sees the overrides.

    Raises:
        ValueError: one sentence naming the key, the value and the fix.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values |= _flatten(config if isinstance(config, dict) else _read_yaml(Path(config)))
    for argument in overrides:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ValueError(f"argument {argument!r} is not key=value; write for example training.max_steps=500")
        values[key] = _parse(key, text)
    name = values.get("task.name", "rule110")
    if name not in TASKS:
        raise ValueError(f"task.name={name!r} is unknown; use one of {', '.join(TASKS)}")
    merged = _merge(OmegaConf.create({"task": OmegaConf.structured(TASKS[name])} | SECTIONS), values)
    try:
        sections = {section: OmegaConf.to_object(merged[section]) for section in merged}
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {_first_line(error)}; fix the ${{...}} reference") from error
    return Experiment(**cast(dict[str, Any], sections))


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


def _parse(key: str, text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])).get("value")  # type: ignore[union-attr]
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{key}={text} cannot be read: {_first_line(error)}; quote the value") from error


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _merge(schema: DictConfig, values: dict[str, Any]) -> DictConfig:
    known = [f"{section}.{key}" for section in map(str, schema) for key in map(str, schema[section])]
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{key}={value!r}: there is no key {key!r}; {_suggest(key, known)}")
        try:
            OmegaConf.update(schema, key, value)
        except OmegaConfBaseException as error:
            section, name = key.split(".")
            kind = get_type_hints(OmegaConf.get_type(schema[section]))[name]
            raise ValueError(f"{key}={value!r} is not {type_name(kind)}; {_first_line(error)}") from error
    return schema


def type_name(annotation: Any) -> str:
    """How a type is shown to users: ``int``, ``int or null``, ``one of none, window, pass``."""
    if getattr(annotation, "__origin__", None) is Literal:
        return "one of " + ", ".join(map(str, annotation.__args__))
    text = annotation.__name__ if isinstance(annotation, type) and "[" not in str(annotation) else str(annotation)
    return text.replace(" | None", " or null")


def _suggest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1) or [k for k in known if k.endswith(f".{key.split('.')[-1]}")]
    return f"did you mean {close[0]}?" if close else "python -m sleep_lightning --help lists all keys"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
