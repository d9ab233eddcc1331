"""Hidden states behind a frozen prelude, on disk: looked up by tokens, computed once for a fixed data set.

Files are immutable and appear by rename, so that runs and ranks may share a directory. What was computed under other
weights, another precision or another number of threads lies in another folder: looked up is only what would be computed
again to the bit.
"""

import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sleep_lightning.model import HybridLM
from sleep_lightning.runs.files import write_atomically

FILE_BYTES = 64 << 20
"""Of a file, unless training stops before."""
SUFFIX = ".safetensors"


class PreludeCache:
    """What rows of tokens gave, of one prelude.

    Args:
        folder: may hold that of other preludes.
        fingerprint: from ``fingerprint``.
        limit: bytes that all files in ``folder`` may take; when it is reached nothing is added.
    """

    def __init__(self, folder: Path, fingerprint: str, limit: int) -> None:
        self._folder, self._own, self._limit = folder, folder / fingerprint, limit
        self._files: dict[Path, Any] = {}
        self._where: dict[str, Any] = {}
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._used = 0
        self._scan()

    def get(self, tokens_T: Tensor) -> Tensor | None:
        """Hidden states ``[T, d_model]`` of a row of tokens, on CPU; None if they are not there."""
        key = _key(tokens_T)
        if key in self._pending:
            return self._pending[key]
        file = self._where.get(key)
        return None if file is None else file.get_tensor(key)

    def put(self, tokens_T: Tensor, h_TE: Tensor) -> None:
        """Add a row, unless there is no room."""
        if self._used + self._pending_bytes + h_TE.nbytes > self._limit:
            return
        self._pending[_key(tokens_T)] = h_TE.detach().cpu().contiguous()
        self._pending_bytes += h_TE.nbytes
        if self._pending_bytes >= FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is new, and see what others have written. A disk that is full ends the adding, not the run."""
        if self._pending:
            try:
                self._own.mkdir(parents=True, exist_ok=True)
                write_atomically(
                    self._own / f"{uuid.uuid4().hex}{SUFFIX}", lambda file: file.write(save(self._pending)), 0
                )
            except OSError as error:
                rank_zero_warn(f"training.prelude_cache={self._folder} cannot be written ({error}); nothing is added")
                self._limit = 0
                return
            self._pending, self._pending_bytes = {}, 0
        self._scan()

    def _scan(self) -> None:
        for path in sorted(self._own.glob(f"*{SUFFIX}")):
            if path in self._files:
                continue
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                rank_zero_warn(f"{path} of training.prelude_cache is damaged and left out ({error}); delete it")
                file = None
            self._files[path] = file
            if file is not None:
                self._where |= dict.fromkeys(file.keys(), file)
        self._used = sum(path.stat().st_size for path in self._folder.glob(f"*/*{SUFFIX}"))

    def __len__(self) -> int:
        """Rows."""
        return len(self._where.keys() | self._pending.keys())


def _key(tokens_T: Tensor) -> str:
    return sha256(tokens_T.to("cpu", torch.int64).contiguous().numpy().tobytes()).hexdigest()


def fingerprint(model: HybridLM, prelude: range, precision: str) -> str:
    """Of the weights of embedding and prelude, and of all else that decides their outputs to the bit."""
    device, digest = model.embedding.weight.device, sha256()
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    sizes = {k: v for k, v in vars(model.config).items() if k not in ("pretrained", "insert", "lora")}
    how = (prelude, precision, kind, torch.__version__, torch.get_num_threads(), torch.get_float32_matmul_precision())
    digest.update(repr((how, sorted(sizes.items(), key=str))).encode())
    for module in (model.embedding, *(model.stack[i] for i in prelude)):
        for name, x in module.state_dict().items():
            digest.update(name.encode() + x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
