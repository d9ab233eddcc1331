"""What the files that an experiment names hold: the same name may mean other data, weights or code elsewhere."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from sleep_lightning.config import Experiment, texts_in

FOLDERS = ("pretrained", "tokenizer", "jsonl")
"""Keys that may name a folder."""
IN_FOLDERS = (".json", ".jsonl", ".parquet", ".safetensors", ".model", ".txt")
"""Suffixes of the files that are read there."""
OWN = "sleep_lightning"


def content_hashes(experiment: Experiment, before: float | None = None) -> dict[str, str]:
    """Hashes of what is named, by key: a task's data, weights, tokenizers; the module of a plug-in, without what that
    module imports, and without installed packages. What is not there, or cannot be read, is left out.

    Args:
        experiment: whose files.
        before: leave out what was changed after this time, in seconds since 1970.
    """
    found = {}
    for key, path in _named(experiment):
        with suppress(OSError, ValueError):  # a text that is no path
            files = _files(key, Path(path))
            stats = [file.stat() for file in files]
            if files and (before is None or max(stat.st_mtime for stat in stats) <= before):
                hashes = [_hash(str(f.absolute()), s.st_mtime_ns, s.st_size) for f, s in zip(files, stats, strict=True)]
                found[key] = (
                    hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]
                )
    return found


def _named(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Keys and texts that may be paths."""
    content = experiment.values()
    for section in ("task", "model"):
        yield from texts_in(content[section], section)
    for key in ("optimizer", "schedule", "callbacks"):
        yield from texts_in(content["training"][key], f"training.{key}")
    places = [Path.cwd(), *map(Path, experiment.training.search_path)]
    for key, class_path in experiment.class_paths():
        module = class_path.rpartition(".")[0]
        if key.startswith("tracking.") or module.partition(".")[0] == OWN:
            continue
        stem = module.replace(".", os.sep)
        files = (place / name for place in places for name in (f"{stem}.py", f"{stem}{os.sep}__init__.py"))
        if (file := next(filter(Path.is_file, files), None)) is not None:
            yield key, str(file)


def _files(key: str, path: Path) -> list[Path]:
    if path.is_dir() and key.rpartition(".")[2] in FOLDERS:
        return sorted(file for file in path.rglob("*") if file.suffix in IN_FOLDERS and file.is_file())
    return [path] if path.is_file() else []


@lru_cache(maxsize=1024)
def _hash(path: str, changed_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
