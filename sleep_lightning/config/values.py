"""What a user gives: YAML and ``key=value`` arguments as one flat mapping of keys, ``training.max_steps`` say."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sleep_lightning.config.training import TrainingConfig

SPECS = ("training.optimizer", "training.schedule")
"""Keys that hold a plug-in, whose ``class_path`` and ``init_args`` may be changed one by one."""
INIT_ARGS = "task.init_args"


def merged_values(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Keys and values of a nested mapping, changed by ``key=value`` arguments.

    Raises:
        ValueError: an argument that is none, or a key below a plug-in's that is none.
    """
    values = _flatten(tree, "")
    given = [_argument(text) for text in overrides]
    for key, value in sorted(given, key=lambda one: one[0] != "task.name" and not one[0].endswith(".class_path")):
        _drop_replaced(values, key, value)
        values |= _flatten(value, f"{key}.") if _descends(key, value) else {key: value}
    for key in SPECS:
        _nest(values, key)
    return values


def _flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        flat |= _flatten(value, f"{key}.") if _descends(key, value) else {key: value}
    return flat


def _descends(key: str, value: Any) -> bool:
    """Whether a mapping consists of keys; else it is a value."""
    return isinstance(value, Mapping) and key not in SPECS and not key.startswith(f"{INIT_ARGS}.")


def _argument(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"argument {text!r} is not key=value; write for example training.max_steps=500")
    return key, _parse(key, value)


def _drop_replaced(values: dict[str, Any], key: str, value: Any) -> None:
    """A class takes its own ``init_args``: those of the one that an argument replaces go."""
    if key == "task.class_path" and values.get(key) != value:
        dropped = [other for other in values if other.startswith("task.")]
    elif key == "task.name":
        dropped = [other for other in values if other.startswith(("task.class_path", "task.init_args"))]
    else:
        return
    for other in dropped:
        del values[other]


def _nest(values: dict[str, Any], spec_key: str) -> None:
    """Put ``key.class_path`` and ``key.init_args.*`` into one value under the key of the plug-in."""
    spec = values.get(spec_key)
    for key in [key for key in values if key.startswith(f"{spec_key}.")]:
        value, (part, *names) = values.pop(key), key.removeprefix(f"{spec_key}.").split(".")
        if part == "class_path" and not names:
            same = isinstance(spec, dict) and spec.get("class_path") == value
            spec = spec if same else {"class_path": value, "init_args": {}}
            continue
        if part != "init_args" or not (names or isinstance(value, dict)):
            raise ValueError(
                f"{key}={value!r}: there is no key {key!r}; use {spec_key}.class_path or {spec_key}.init_args.NAME"
            )
        if not isinstance(spec, dict):
            default = TrainingConfig.__dataclass_fields__[spec_key.partition(".")[2]].default
            spec = {"class_path": default if spec is None else spec}
        spec = spec | {"init_args": dict(spec.get("init_args") or {})}
        inner = spec["init_args"]
        for name in names[:-1]:
            inner[name] = dict(inner.get(name) or {})
            inner = inner[name]
        if names:
            inner[names[-1]] = value
        else:
            inner |= value
    if spec is not None:
        values[spec_key] = spec


def _parse(key: str, text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])).get("value")  # type: ignore[union-attr]
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{key}={text} cannot be read: {first_line(error)}; quote the value") from error


def first_line(error: Exception) -> str:
    """The first line of an exception's text."""
    return str(error).splitlines()[0].rstrip(".")
