"""``init_args`` of plug-ins, read by the types that the signature of their class annotates."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sleep_lightning.config.plugin_kinds import KindName
from sleep_lightning.config.plugins import find_plugin
from sleep_lightning.config.reading import Argument, as_meant, inside, is_text, without_null
from sleep_lightning.config.schema import parameter_types

PLUGIN_KEYS: dict[str, KindName] = {
    "training.optimizer": "optimizer",
    "training.schedule": "schedule",
    "training.callbacks": "callback",
    "tracking.loggers": "logger",
    "model.memory_rules": "memory_rule",
}
"""Keys that hold a plug-in, a list of them, or one for each letter."""


def specs_as_meant(key: str, value: Any, written: Any, search: Iterable[str | Path]) -> Any:
    """The value of one of ``PLUGIN_KEYS``, as the parameters of the classes it names read what was written.

    Raises:
        ValueError: such a class cannot be found, or a value is not YAML where its parameter is no text.
    """
    written = written.written if isinstance(written, Argument) else written
    if isinstance(value, list) and isinstance(written, list):
        pairs = enumerate(zip(value, written, strict=True))
        return [_spec_as_meant(PLUGIN_KEYS[key], *pair, f"{key}[{i}]", search) for i, pair in pairs]
    if PLUGIN_KEYS[key] == "memory_rule" and isinstance(value, Mapping) and isinstance(written, Mapping):
        kind = PLUGIN_KEYS[key]
        return {k: _spec_as_meant(kind, spec, written.get(k), f"{key}.{k}", search) for k, spec in value.items()}
    return _spec_as_meant(PLUGIN_KEYS[key], value, written, key, search)


def _spec_as_meant(kind: KindName, spec: Any, written: Any, key: str, search: Iterable[str | Path]) -> Any:
    if not isinstance(spec, Mapping) or not isinstance(written, Mapping) or "${" in str(spec.get("class_path")):
        return spec
    values, texts = spec.get("init_args"), written.get("init_args")
    if not isinstance(values, Mapping) or not isinstance(texts, Mapping):
        return spec
    types, meant = parameter_types(find_plugin(kind, spec, key, search)), {}
    for name, value in values.items():
        _check_read(types.get(name, Any), texts.get(name), f"{key}.init_args.{name}")
        meant[name] = as_meant(types.get(name, Any), value, texts.get(name))
    return {**spec, "init_args": meant}


def _check_read(kind: Any, text: Any, key: str) -> None:
    if isinstance(text, Argument) and text.error and not is_text(kind):
        raise text.refused(key)
    for name, one in text.items() if isinstance(text, Mapping) else ():
        _check_read(inside(without_null(kind), name), one, f"{key}.{name}")
