"""What a state belongs to: a hash of a model's weights and configuration."""

import hashlib
import json
from dataclasses import asdict, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

WITHOUT = ("backend", "pretrained")
"""Keys of ``model`` that do not change what the model computes from its weights."""

_known: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all weights (names, dtypes, shapes, values) and the model's configuration, as hex.

    It is computed again only when a weight has been changed in place or replaced.
    """
    tensors = model.state_dict()
    versions = tuple((name, x.data_ptr(), x._version) for name, x in tensors.items())
    if model not in _known or _known[model][0] != versions:
        _known[model] = (versions, _hash(model, tensors))
    return _known[model][1]


def _hash(model: nn.Module, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(type(model).__name__.encode())
    config = getattr(model, "config", None)
    if is_dataclass(config) and not isinstance(config, type):
        content = {k: v for k, v in asdict(config).items() if k not in WITHOUT}
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    digest.update(str(getattr(model, "neutral_pad", None)).encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(tensor_bytes(x))
    return digest.hexdigest()


def tensor_bytes(x: Tensor) -> bytes | memoryview:
    """A tensor's values as they lie in memory."""
    flat = x.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""
