"""The file of a session: safetensors, with all that is not a tensor as JSON in its metadata.

Nothing in it is executed, and nothing is taken over before its checksum, its version and every shape have been
compared with what the model says they are.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sleep_lightning.session.atomic_write import write_whole
from sleep_lightning.session.fingerprint import tensor_bytes

FORMAT = "sleep_lightning.session"
VERSION = 1
"""Of the format: raised whenever an older version of the package would misread a file."""
KEY = "session"


def write_state(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write by rename. Raises OSError if that is not possible; the file before is then intact."""
    content = {"format": FORMAT, "version": VERSION, **header}
    kept = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}  # an empty window shares them
    content["checksum"] = _checksum(content, kept)
    write_whole(path, save(kept, metadata={KEY: json.dumps(content)}))


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors as they were written.

    Raises:
        ValueError: the file is truncated, damaged, of a newer version, or no state of a session.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no plain file; give a file written by SleepSession.save")
    content = path.read_bytes()
    try:
        tensors = load(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, RecursionError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{path} is truncated or damaged ({error}); give a file written by SleepSession.save"
        ) from None
    try:
        header = json.loads(metadata[KEY])
        foreign = header["format"] != FORMAT
    except (ValueError, KeyError, TypeError, RecursionError):
        foreign = True
    if foreign:
        raise ValueError(f"{path} is a safetensors file, but no state of a session; give one by SleepSession.save")
    version = header.get("version")
    if type(version) is not int or version > VERSION:
        raise ValueError(
            f"{path} has format version {str(version)[:20]!r}, and this sleep_lightning reads up to {VERSION}; "
            f"update it"
        )
    said = header.pop("checksum", None)
    if said != _checksum(header, tensors):
        raise ValueError(f"{path} is damaged: its checksum does not fit its content; use a copy of it")
    return header, tensors


def read_expiry(path: Path) -> float | None:
    """When a state expires, without reading its tensors; None: never, or it is not known."""
    at = _glance(path).get("expires_at")
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) else None


def is_state(path: Path) -> bool:
    """Whether a file says that it is the state of a session; nothing else of it is read."""
    return _glance(path).get("format") == FORMAT


def _glance(path: Path) -> dict[str, Any]:
    """What a file says beside its tensors; empty if it is no state, or cannot be read."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(json.loads(file.read(min(size, path.stat().st_size)))["__metadata__"][KEY])
        return header if isinstance(header, dict) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return {}


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"\0{name} {x.dtype} {tuple(x.shape)}\0".encode())
        digest.update(tensor_bytes(x))
    return digest.hexdigest()
