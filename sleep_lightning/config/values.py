"""What a user gives: YAML and ``key=value`` arguments as one flat mapping of keys, ``training.max_steps`` say."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleep_lightning.config.checks import did_you_mean, no_such_key
from sleep_lightning.config.reading import Argument, literal
from sleep_lightning.config.training import TrainingConfig

Override = str | tuple[str, Any]
"""A change: a ``key=value`` argument, or a key with a value that is taken as it is."""

SPECS = ("training.optimizer", "training.schedule")
"""Keys that hold a plug-in, whose ``class_path`` and ``init_args`` may be changed one by one."""
RULES = "model.memory_rules"
"""The key that holds a plug-in for each of some letters."""
MAPPINGS = ("model.insert", "model.lora", "model.rope_scaling")
"""Keys that hold a mapping whose values may be changed one by one."""
PLUGIN_SECTIONS = ("task", "model")
"""Sections that may consist of the ``class_path`` and the ``init_args`` of a plug-in."""
NAMES = ("task.name", *(f"{section}.class_path" for section in PLUGIN_SECTIONS))
"""Keys whose values say which other keys there are."""


def texts_in(content: Any, key: str) -> Iterator[tuple[str, str]]:
    """Keys and texts, not empty, of plain containers: some may name files."""
    if isinstance(content, str) and content:
        yield key, content
    elif isinstance(content, dict | list):
        inner = content.items() if isinstance(content, dict) else enumerate(content)
        for name, value in inner:
            yield from texts_in(value, f"{key}.{name}")


def merged_values(
    tree: Mapping[str, Any], written: Any, overrides: Sequence[Override]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys and values of a nested mapping, changed by arguments.

    Args:
        tree: as YAML reads it.
        written: the same, with every scalar as its text; anything else where that is not known.
        overrides: the changes.

    Returns:
        The values, and by key what was written (see ``reading.as_meant``), where that is known.

    Raises:
        ValueError: an argument that is none or no YAML, or a key below a plug-in's that is none.
    """
    values, texts = _flatten(tree, ""), _flatten(written, "") if isinstance(written, Mapping) else {}
    given = [parse_change(one) for one in overrides]
    for key, value, text in sorted(given, key=lambda one: one[0] != "task.name" and not one[0].endswith(".class_path")):
        _drop_replaced(values, key, value)
        values |= _flatten(value, f"{key}.") if _descends(key, value) else {key: value}
        texts = {name: x for name, x in texts.items() if name != key and not name.startswith(f"{key}.")}
        if text is not None and not _descends(key, value):
            texts[key] = text
        elif isinstance(text, Argument) and isinstance(text.written, Mapping):
            texts |= _flatten(text.written, f"{key}.")
    for section in PLUGIN_SECTIONS:
        if values.get(f"{section}.init_args", ...) is None:
            del values[f"{section}.init_args"]
    for key in SPECS:
        _nest(values, texts, key)
    _nest_rules(values, texts)
    _nest_mappings(values, texts)
    return values, texts


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys and values of a nested mapping."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        flat |= _flatten(value, f"{key}.") if _descends(key, value) else {key: value}
    return flat


def _descends(key: str, value: Any) -> bool:
    """Whether a mapping consists of keys; else it is a value."""
    inside = "." not in key or key in (f"{section}.init_args" for section in PLUGIN_SECTIONS)
    return isinstance(value, Mapping) and inside


def parse_change(one: Override) -> tuple[str, Any, Argument | None]:
    """Key, value, and what was typed. Raises ValueError for an argument that is no ``key=value``."""
    if not isinstance(one, str):
        return one[0], literal(one[1]), None
    key, equals, text = one.partition("=")
    if not equals or not key:
        if one.endswith((".yaml", ".yml")) or Path(one).is_file():
            raise ValueError(f"argument {one!r} is a file, and no key=value; an experiment is given as --config {one}")
        quotes = ", and a value with spaces in quotes" if one.endswith(tuple(",:]}")) else ""
        raise ValueError(f"argument {one!r} is not key=value; write for example training.max_steps=500{quotes}")
    argument = Argument.of(text)
    if key in NAMES:
        return key, None if text == "null" else text, argument
    return key, argument.value, argument


def _drop_replaced(values: dict[str, Any], key: str, value: Any) -> None:
    """A class takes its own ``init_args``: those of the one that an argument replaces go."""
    section, _, name = key.partition(".")
    if section not in PLUGIN_SECTIONS or values.get(key) == value or name not in ("class_path", "name"):
        return
    prefix = f"{section}." if name == "class_path" else (f"{section}.class_path", f"{section}.init_args")
    dropped = [other for other in values if other.startswith(prefix)]
    for other in dropped:
        del values[other]


def _nest(values: dict[str, Any], texts: dict[str, Any], spec_key: str) -> None:
    """Put ``key.class_path`` and ``key.init_args.*`` into one value under the plug-in's key; so what was written."""
    spec, written = values.get(spec_key), _tree(texts.get(spec_key))
    for key in [key for key in values if key.startswith(f"{spec_key}.")]:
        value, text, (part, *names) = values.pop(key), texts.pop(key, None), key.removeprefix(f"{spec_key}.").split(".")
        if part == "class_path" and not names:
            if not (isinstance(spec, dict) and spec.get("class_path") == value):
                spec, written = {"class_path": value, "init_args": {}}, None
            continue
        if part != "init_args" or not (names or isinstance(value, dict)):
            fix = did_you_mean(part, ("class_path", "init_args"), f"{spec_key}.") if part != "init_args" else None
            fix = fix or f"use {spec_key}.class_path or {spec_key}.init_args.NAME"
            raise ValueError(no_such_key(key, value, fix))
        if not isinstance(spec, dict):
            default = getattr(TrainingConfig, spec_key.partition(".")[2], None)
            spec, written = {"class_path": default if spec is None else spec}, None
        written = _put(spec, written, [part, *names], text if names else _tree(text))
        spec = _put(spec, spec, [part, *names], value)
    if spec is not None:
        values[spec_key] = spec
        texts[spec_key] = written


def _put(tree: Any, copied: Any, names: list[str], value: Any) -> dict[str, Any]:
    """A nested mapping with a value at the end of ``names``; where it is none, the keys of ``tree``, unknown."""
    name, *deeper = names
    keys = tree if isinstance(tree, Mapping) else {}
    copy = dict(copied) if isinstance(copied, Mapping) else dict.fromkeys(keys)
    return copy | {name: _put(keys.get(name), copy.get(name), deeper, value) if deeper else value}


def _tree(text: Any) -> Any:
    return text.written if isinstance(text, Argument) else text


def _nest_mappings(values: dict[str, Any], texts: dict[str, Any]) -> None:
    for mapping in MAPPINGS:
        given = values.get(mapping)
        inner = [key for key in values if key.startswith(f"{mapping}.")] if isinstance(given, Mapping | None) else []
        if inner:
            values[mapping] = {**(given or {}), **{key.removeprefix(f"{mapping}."): values.pop(key) for key in inner}}
            texts.pop(mapping, None)


def _nest_rules(values: dict[str, Any], texts: dict[str, Any]) -> None:
    given, written = values.get(RULES), _tree(texts.get(RULES))
    letters = [key.split(".")[2] for key in values if key.startswith(f"{RULES}.")]
    if not letters or not isinstance(given, Mapping | None):
        return
    rules, known = dict(given or {}), dict(written) if isinstance(written, Mapping) else dict.fromkeys(given or {})
    for letter in dict.fromkeys(letters):
        key = f"{RULES}.{letter}"
        if key not in values and letter in rules:
            values[key], texts[key] = rules[letter], known.get(letter)
        _nest(values, texts, key)
        rules[letter], known[letter] = values.pop(key), texts.pop(key, None)
    values[RULES], texts[RULES] = rules, known
