"""A directory with a pretrained model: ``config.json`` and safetensors, in one file or in shards with an index."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sleep_lightning.pretrained.entries import EVERY
from sleep_lightning.pretrained.sources import how_to_get

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``. Raises ValueError if there is none that can be read."""
    content = _read_json(folder / CONFIG, "name a directory with config.json and *.safetensors")
    if not isinstance(content.get("model_type"), str):
        raise ValueError(f"{folder / CONFIG} names no model_type; it is not the config of a pretrained model")
    return content


class Snapshot:
    """The weights of a directory. Files are mapped into memory, and read where a tensor is asked for.

    Args:
        folder: the directory.

    Raises:
        ValueError: no safetensors, a damaged file, or an index that does not hold.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.file_of: dict[str, str] = {}
        index = folder / INDEX
        listed: dict[str, str] = _read_json(index, "").get("weight_map", {}) if index.exists() else {}
        for name in sorted(set(listed.values())) if listed else [self._single()]:
            if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
                raise ValueError(f"{index} names {name!r}, which is no file of {folder}; fetch the snapshot again")
            with _opened(folder / name) as file:
                for tensor in file.keys():  # noqa: SIM118
                    header = file.get_slice(tensor)
                    self.shapes[tensor], self.dtypes[tensor] = tuple(header.get_shape()), header.get_dtype()
                    self.file_of[tensor] = name
        if listed and listed != self.file_of:
            wrong = sorted(listed.keys() ^ self.file_of.keys()) or [t for t in listed if listed[t] != self.file_of[t]]
            raise ValueError(f"{index} does not say where {wrong[0]} is; fetch the snapshot again")

    def _single(self) -> str:
        if (self.folder / WEIGHTS).is_file():
            return WEIGHTS
        pickled = next((path.name for kind in PICKLES for path in sorted(self.folder.glob(kind))), None)
        if pickled is not None:
            raise ValueError(
                f"{self.folder} holds pickled weights ({pickled}), which could run code and are not read; convert them "
                f"to {WEIGHTS}"
            )
        known = how_to_get(str(self.folder))
        fix = "fetch the snapshot again" if known is None else f"{known} fetches them"
        raise ValueError(f"{self.folder} has no {WEIGHTS} and no {INDEX}; {fix}")

    @property
    def files(self) -> list[str]:
        """Names of the files with weights."""
        return sorted(set(self.file_of.values()))

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor, without reading it. Raises ValueError for one that weights here do not have."""
        if (dtype := DTYPES.get(self.dtypes[name])) is None:
            raise ValueError(f"{self.folder}: {name} is of {self.dtypes[name]}, not {', '.join(DTYPES)}; convert it")
        return dtype

    def tensor(self, name: str, rows: slice = EVERY) -> Tensor:
        """One tensor, or some of its rows, as stored. Raises ValueError for a damaged file."""
        with _opened(self.folder / self.file_of[name]) as file:
            x: Tensor = file.get_tensor(name) if rows == EVERY else file.get_slice(name)[rows]
            return x


def shapes_in(path: Path, fix: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file. Raises ValueError for a damaged one, or none, that ends with ``fix``."""
    with _opened(path, fix) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path, fix: str = "fetch it again") -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged or no safetensors file ({reason}); {fix}") from error


def _read_json(path: Path, fix: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; {fix}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} instead of a mapping; fetch it again")
    return content
