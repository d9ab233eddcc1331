"""Activation memory of a training step: what autograd keeps, measured, and predicted from two single passes.

Full BPTT keeps every pass of every window until the backward, so memory grows with windows x N, not with the
model. ``predict_activations`` predicts it before step 0, ``predict_peak`` what the process needs; ``bench memory``
compares that with what the process took.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from sleep_lightning.model import HybridLM, WindowModel
from sleep_lightning.sleep import Checkpointing, Pass, PlannedWindow, SleepConfig, plan_passes, sleep, wake
from sleep_lightning.sleep.config import Looped


class Saved:
    """Bytes of the distinct storages that autograd saved, parameters and buffers left out."""

    def __init__(self, model: WindowModel) -> None:
        self._own = {x.untyped_storage()._cdata for x in (*model.parameters(), *model.buffers())}
        self._sizes: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def pack(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if (key := storage._cdata) not in self._own:
            self._sizes[key] = storage.nbytes()
            self._alive.append(x)  # a freed storage's address could be reused by another
        return x

    @property
    def nbytes(self) -> int:
        return sum(self._sizes.values())


@contextmanager
def count_saved(model: WindowModel) -> Iterator[Saved]:
    """Counts what autograd saves inside the block."""
    saved = Saved(model)
    with saved_tensors_hooks(saved.pack, lambda x: x):
        yield saved


@dataclass(frozen=True)
class PassBytes:
    """Bytes kept for one sequence of a full window: by a pass of all ``n_blocks``, by one that only writes (of
    ``writing_blocks``), by a recomputed one, and by the MLPs of a pass of all (0 if no pass leaves them out)."""

    full: int
    write: int
    checkpointed: int
    mlps: int
    n_blocks: int
    writing_blocks: int

    def of(self, p: Pass) -> float:
        """Bytes of a pass of some blocks: all keep alike but the last that writes, behind which nothing is kept."""
        block, mlp, n = self.full / self.n_blocks, 0.0 if p.mlps else self.mlps / self.n_blocks, len(p.recorded)
        if not p.writes_only:
            return n * (block - mlp)
        left_out = (self.writing_blocks - n) * block + (n - 1) * mlp
        return max(0.0, self.write - left_out)


def probe_pass(
    model: WindowModel,
    window_size: int,
    rows: int = 1,
    policy: Checkpointing = "none",
    looped: Looped = "blocks",
) -> PassBytes:
    """Run the two kinds of pass once over one sequence (or ``rows``, for what they keep together) and count.

    Under ``policy="mlp"`` they keep less; under the others a recomputed pass keeps what it does under none. A model of
    fake tensors is not computed.
    """
    with _fake_where(model):
        return _probe(model, window_size, rows, policy, looped)


def _fake_where(model: WindowModel) -> AbstractContextManager[object]:
    """New tensors are fake where those of the model are."""
    return getattr(next(iter(model.parameters())), "fake_mode", nullcontext())


def _probe(model: WindowModel, window_size: int, rows: int, policy: Checkpointing, looped: Looped) -> PassBytes:
    device, config = next(iter(model.parameters())).device, SleepConfig(window_size)
    tokens = torch.zeros(rows, window_size, dtype=torch.int64, device=device)
    memory = model.zero_memory(rows).map(lambda x: x.requires_grad_())
    checkpointing: Checkpointing = "mlp" if policy == "mlp" else "none"
    reads, writes = (plan_passes(model, config, sleeps=s, checkpointing=checkpointing) for s in (False, True))
    with _looped(model):
        with count_saved(model) as full:
            h, _ = wake(model, tokens, memory, config, passes=reads)
        with count_saved(model) as write:
            sleep(model, tokens, memory, config, passes=writes)
        mlps = 0
        if looped == "mixers":
            alone = [replace(p, mlps=False, recompute="none") for p in reads]
            with count_saved(model) as mixers:
                wake(model, tokens, memory, config, passes=alone)
            mlps = full.nbytes - mixers.nbytes
    kept = h.nbytes + memory.nbytes
    return PassBytes(full.nbytes, write.nbytes, kept, mlps, model.n_blocks, len(writes[-1].blocks))


@contextmanager
def _looped(model: WindowModel) -> Iterator[None]:
    """Every block has a gradient, also in front of the first that learns, as from the second pass on."""
    embedding = model.embedding.weight if isinstance(model, HybridLM) else None
    learns = embedding is not None and embedding.requires_grad
    if embedding is not None:
        embedding.requires_grad_(True)
    try:
        yield
    finally:
        if embedding is not None:
            embedding.requires_grad_(learns)


def predict_activations(passes: PassBytes, schedule: Sequence[Sequence[PlannedWindow]], batch_size: int) -> int:
    """Peak bytes of activations in a step, window by window.

    Without checkpointing every pass since the last detach is alive at the backward. With it, only the inputs of
    each pass (or window) are, and the one pass (or all passes of the one window) that is being recomputed.

    Args:
        passes: from ``probe_pass`` under the schedule's policy.
        schedule: the windows by segment.
        batch_size: sequences.
    """
    return batch_size * max(_segment_bytes(passes, segment) for segment in schedule)


FP32 = 4
GRAPH_BYTES = 40 << 10
"""The graph itself, a block of a pass: its nodes stay alive under checkpointing too (measured on CPU, torch 2.13)."""


def predict_peak(
    passes: PassBytes, schedule: Sequence[Sequence[PlannedWindow]], batch_size: int, vocab_size: int
) -> int:
    """Peak bytes of a step above parameters, gradients and optimizer: activations, the gradients of one pass that are
    in flight during the backward, or before it the logits and theirs, and the graph.

    Args:
        passes, schedule, batch_size: as for ``predict_activations``.
        vocab_size: log-probabilities of a token, fp32; the mean, where not all tokens have them.
    """
    kept = predict_activations(passes, schedule, batch_size)
    alive = max(sum(len(p.recorded) for one in segment for p in _recorded(one)) for segment in schedule)
    windows = [[one.window for one in segment if not one.window.sleeps] for segment in schedule]
    answers = [[window.stop - window.start for window in segment] for segment in windows]
    tokens = max((sum(one) + 2 * max(one) for one in answers if one), default=0)  # of one window two gradients more
    return kept + batch_size * max(passes.full, FP32 * vocab_size * tokens) + alive * GRAPH_BYTES


def _recorded(planned: PlannedWindow) -> list[Pass]:
    return [p for p in planned.passes if p.gradient]


def _segment_bytes(passes: PassBytes, segment: Sequence[PlannedWindow]) -> int:
    longest = max(planned.window.stop - planned.window.start for planned in segment)
    kept, recomputed = 0.0, 0.0
    for planned in segment:
        share = (planned.window.stop - planned.window.start) / longest
        each = [share * passes.of(p) for p in _recorded(planned)]
        if planned.recompute:
            kept += passes.checkpointed
            recomputed = max(recomputed, sum(each))
            continue
        for p, nbytes in zip(_recorded(planned), each, strict=True):
            if p.recompute == "pass":
                kept += passes.checkpointed
                recomputed = max(recomputed, nbytes)
            else:
                kept += nbytes
    return int(kept + recomputed)
