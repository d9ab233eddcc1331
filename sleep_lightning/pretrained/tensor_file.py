"""Writing a safetensors file: its library has an error of its own for those of the system."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file, and have it on disk. Raises OSError, which names it."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if (said := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(number := int(said[1]), os.strerror(number), str(path)) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())
