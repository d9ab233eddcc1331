"""Activation memory of a training step: what autograd keeps, measured, and predicted from two single passes.

Full BPTT keeps every pass of every window until the backward, so memory grows with windows x N, not with the
model. ``predict_activations`` says how much before step 0, ``predict_peak`` what the process will need; ``bench
memory`` holds it against what the process took.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from sleep_lightning.model import HybridLM
from sleep_lightning.sleep import WHOLE_PASSES, Checkpoint, SleepConfig, Window, wake


class Saved:
    """Bytes of the distinct storages that autograd saved, parameters and buffers left out."""

    def __init__(self, model: HybridLM) -> None:
        self._own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
        self._sizes: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def pack(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._sizes[storage.data_ptr()] = storage.nbytes()
            self._alive.append(x)  # a freed storage's address could come back as another's
        return x

    @property
    def nbytes(self) -> int:
        return sum(self._sizes.values())


@contextmanager
def count_saved(model: HybridLM) -> Iterator[Saved]:
    """Counts what autograd saves inside the block."""
    saved = Saved(model)
    with saved_tensors_hooks(saved.pack, lambda x: x):
        yield saved


@dataclass(frozen=True)
class PassBytes:
    """Bytes kept for one sequence by a full pass, by a pass that only writes, and by a checkpointed pass; and those of
    the weights laid out for all of them."""

    full: int
    write: int
    checkpointed: int
    shared: int = 0


def probe_pass(model: HybridLM, window_size: int, rows: int = 1, policy: Checkpoint = "none") -> PassBytes:
    """Run the two kinds of pass once over one sequence (or ``rows``, for what they keep together) and count.

    Under ``policy="mlp"`` they keep less; under the others a pass that is made again keeps what it does under none.
    """
    device = model.embedding.weight.device
    tokens = torch.zeros(rows, window_size, dtype=torch.int64, device=device)
    memory = model.zero_memory(rows).map(lambda x: x.requires_grad_())
    with model.shared_weights(0), model.mlps_recomputed(policy == "mlp"):
        with count_saved(model) as full:
            h, _ = wake(model, tokens, memory)
        with count_saved(model) as write:
            model.write(model.embed(tokens), memory)
        return PassBytes(full.nbytes, write.nbytes, h.nbytes + memory.nbytes, model.shared_bytes)


def predict_activations(
    passes: PassBytes,
    windows: list[Window],
    sleep: SleepConfig,
    batch_size: int,
    *,
    tbptt_windows: int | None = None,
    policy: Checkpoint = "none",
) -> int:
    """Peak bytes of activations in a step, window by window.

    Without checkpointing every pass since the last detach is alive at the backward. With it, only the inputs of
    each pass (or window) are, and the one pass (or all passes of the one window) that is being recomputed. ``passes``
    is from ``probe_pass`` under the same policy.
    """
    k = tbptt_windows or len(windows)
    segments = [windows[i : i + k] for i in range(0, len(windows), k)]
    return batch_size * max(_segment_bytes(passes, segment, sleep, policy) for segment in segments)


GRAPH_BYTES = 40 << 10
"""The graph itself, a block of a pass: its nodes stay alive under checkpointing too (measured on CPU, torch 2.13)."""


def predict_peak(
    passes: PassBytes,
    windows: list[Window],
    sleep: SleepConfig,
    batch_size: int,
    n_blocks: int,
    *,
    tbptt_windows: int | None = None,
    policy: Checkpoint = "none",
) -> int:
    """Peak bytes of a step above parameters, gradients and optimizer: activations, the gradients of one pass that are
    in flight during the backward, the weights laid out for all passes, and the graph."""
    kept = predict_activations(passes, windows, sleep, batch_size, tbptt_windows=tbptt_windows, policy=policy)
    k, m = tbptt_windows or len(windows), sleep.grad_passes or sleep.n_passes
    alive = max(sum(m if w.sleeps else 1 for w in windows[i : i + k]) for i in range(0, len(windows), k))
    return kept + batch_size * passes.full + passes.shared + alive * n_blocks * GRAPH_BYTES


def _segment_bytes(passes: PassBytes, segment: list[Window], sleep: SleepConfig, policy: Checkpoint) -> int:
    longest = max(window.stop - window.start for window in segment)
    m = sleep.grad_passes or sleep.n_passes
    asleep = (m - 1) * passes.full + passes.write
    kept, recomputed = 0.0, 0.0
    for window in segment:
        share = (window.stop - window.start) / longest
        whole = share * (asleep if window.sleeps else passes.full)
        if policy not in WHOLE_PASSES:
            kept += whole
        elif policy == "window":
            kept += passes.checkpointed
            recomputed = max(recomputed, whole)
        else:
            kept += passes.checkpointed * (m if window.sleeps else 1)
            recomputed = max(recomputed, share * passes.full)
    return int(kept + recomputed)
