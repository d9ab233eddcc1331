"""Algorithm 1 layer by layer over all windows at once: the same result as ``run_window_loop``, where that is legal.

With the paper's feedback (pass n + 1 reads the hidden states of pass n) passes are strictly sequential. Without
it (N = 1, or ``pass_input: embed``) no layer waits for a later one, so each runs once over everything: attention
as a batch of windows, the fast weights as one long recurrence over all windows and passes. What lies before the
first state is read is the same in every pass and computed once; what lies after the last state is written is
computed only for the windows that answer.

Virtual time: every sleeping window N times in a row, every other once. All windows have L tokens but the last.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import Block
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.ops import DeltaInputs
from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.windows import Window

Executor = Literal["auto", "windows"]
"""``auto``: layer by layer where that is legal; ``windows``: always the window loop."""


def why_not_layerwise(model: HybridLM, config: SleepConfig) -> str | None:
    """Why passes or windows must be run in sequence; None if layer by layer is the same."""
    if config.n_passes > 1 and config.pass_input != "embed":
        return f"sleep.pass_input={config.pass_input} feeds every pass with the one before"
    if config.n_passes > 1 and config.loop != "all":
        return f"sleep.loop={config.loop} loops a part of the stack"
    if config.eviction != "hard":
        return f"sleep.eviction={config.eviction} lets a window attend to the one before"
    if config.wake_passes > 1:
        return f"sleep.wake_passes={config.wake_passes} loops over answers"
    if config.retrieved_windows:
        return f"sleep.retrieved_windows={config.retrieved_windows} puts windows in front of others"
    if model.config.summary_tokens:
        return f"model.summary_tokens={model.config.summary_tokens} makes windows wait for summaries"
    if model.neutral_pad is not None:
        return "neutral pads are left out window by window"
    if config.n_passes > 1 and config.reset_memory_between_passes:
        return "sleep.reset_memory_between_passes starts every pass from the same memory"
    if config.grad_passes not in (None, config.n_passes):
        return "sleep.grad_passes treats passes differently"
    if config.carry_conv_state and model.config.conv_size:
        return "sleep.carry_conv_state makes windows wait for each other in the convolution"
    return None


def run_layerwise(
    model: HybridLM, tokens_BT: Tensor, windows: list[Window], memory: Memory, config: SleepConfig
) -> tuple[dict[int, Tensor], Memory]:
    """Consecutive windows at once.

    Args:
        model: the hybrid.
        tokens_BT: token ids of the whole batch.
        windows: consecutive windows of it; all but the last of one length.
        memory: memory before the first of them.
        config: N and its options; ``why_not_layerwise`` must be None.

    Returns:
        Hidden states ``[B, <= L, d_model]`` of the windows that do not sleep, by their index in ``windows``, and
        the memory after the last window.
    """
    layout = _Layout(windows, config.n_passes)
    tokens = tokens_BT[:, windows[0].start : windows[-1].stop]
    h = model.embed(tokens)
    states, i, last = list(memory.states), 0, model.config.last_writer()
    if last < 0:  # no memory: only the windows that answer matter
        h, tokens, layout = layout.answering(h), layout.answering(tokens), layout.awake
    for index, block in enumerate(model.stack):
        if not layout.names:
            break
        known = None if index else tokens
        if isinstance(block.mixer, Attention):
            h = block.run(_attend, layout, h, known)
        else:
            h, layout, states[i] = block.run(_remember, layout, h, known, states[i], unroll=i == 0, last=index == last)
            i += 1
    return dict(zip(layout.names, h.split(layout.lengths, 1), strict=True)), Memory(tuple(states))


def _attend(block: Block, layout: "_Layout", h: Tensor, tokens: Tensor | None) -> Tensor:
    """A block of attention."""
    return block.feed_forward(layout.attend(block, h, tokens))


def _remember(
    block: Block, layout: "_Layout", h: Tensor, tokens: Tensor | None, state: Tensor, *, unroll: bool, last: bool
) -> tuple[Tensor, "_Layout", Tensor]:
    """A block of fast weights: hidden states, their layout and the state behind it."""
    mixer = block.mixer
    assert isinstance(mixer, FastWeights)
    if last:
        h, state = _answer(block, mixer, h, tokens, layout, state, unroll=unroll)
        return block.feed_forward(h), layout.awake, state
    projections = layout.project(block, h, tokens, read=True)
    if unroll:
        projections, (h, layout) = projections.map(layout.unroll), (layout.unroll(h), layout.unrolled())
    o, state = mixer.scan(projections, state)
    assert o is not None
    return block.feed_forward(block.read_out(h, o, projections)), layout, state


def _answer(
    block: Block,
    mixer: FastWeights,
    h_BTE: Tensor,
    tokens_BT: Tensor | None,
    layout: "_Layout",
    state: Tensor,
    *,
    unroll: bool,
) -> tuple[Tensor, Tensor]:
    """The last fast-weight layer: everything writes; only windows that answer read, ``[B, their tokens, E]``."""
    answers, start = [h_BTE[:, :0]], 0
    for run, h in layout.runs(h_BTE):
        tokens = None if tokens_BT is None else tokens_BT[:, start : start + h.shape[1]]
        start += h.shape[1]
        projections = run.project(block, h, tokens, read=not run.sleeps[0])
        o, state = mixer.scan(projections.map(run.unroll) if unroll else projections, state)
        if o is not None:
            answers.append(block.read_out(h, o, projections))
    return torch.cat(answers, 1), state


class _Layout:
    """Where windows lie along the token axis: ``[B, sum(lengths), ...]``; ``names`` are indices into the plan."""

    def __init__(self, windows: list[Window], n_passes: int, names: list[int] | None = None) -> None:
        self.windows, self.n_passes = windows, n_passes
        self.names = list(range(len(windows))) if names is None else names
        self.lengths = [windows[n].stop - windows[n].start for n in self.names]
        self.sleeps = [windows[n].sleeps for n in self.names]

    def subset(self, names: list[int]) -> "_Layout":
        return _Layout(self.windows, self.n_passes, names)

    def unrolled(self) -> "_Layout":
        """The layout in virtual time."""
        return self.subset([n for n in self.names for _ in range(self.n_passes if self.windows[n].sleeps else 1)])

    def unroll(self, x: Tensor) -> Tensor:
        """``[B, T, ...]`` into virtual time."""
        order = self.unrolled().names
        if order == self.names:
            return x
        pieces = dict(zip(self.names, x.split(self.lengths, 1), strict=True))
        return torch.cat([pieces[n] for n in order], 1)

    @property
    def awake(self) -> "_Layout":
        """Only the windows that answer."""
        return self.subset([n for n, sleeps in zip(self.names, self.sleeps, strict=True) if not sleeps])

    def answering(self, x: Tensor) -> Tensor:
        """What of ``[B, T, ...]`` belongs to the windows that answer."""
        pieces = zip(x.split(self.lengths, 1), self.sleeps, strict=True)
        kept = [piece for piece, sleeps in pieces if not sleeps]
        return torch.cat(kept, 1) if kept else x[:, :0]

    def runs(self, x: Tensor) -> Iterator[tuple["_Layout", Tensor]]:
        """Maximal runs of windows that all sleep or all don't."""
        start = 0
        for _, group in groupby(self.names, key=lambda n: self.windows[n].sleeps):
            run = self.subset(list(group))
            yield run, x[:, start : start + sum(run.lengths)]
            start += sum(run.lengths)

    def batches(self, x: Tensor) -> list[Tensor]:
        """``[B, T, ...]`` as batches ``[B * n, length, ...]`` of windows of one length: the last may be shorter."""
        groups = [(length, len(list(group))) for length, group in groupby(self.lengths)]
        parts = x.split([length * n for length, n in groups], 1)
        return [part.reshape(-1, length, *x.shape[2:]) for part, (length, _) in zip(parts, groups, strict=True)]

    def attend(self, block: Block, h_BTE: Tensor, tokens_BT: Tensor | None) -> Tensor:
        """The hidden states behind attention inside each window."""
        return _join([block.attend(h, tokens=tokens) for h, tokens in self._parts(h_BTE, tokens_BT)], len(h_BTE))

    def project(self, block: Block, h_BTE: Tensor, tokens_BT: Tensor | None, *, read: bool) -> DeltaInputs:
        """What the rule takes, ``[B, T, ...]``; the convolution restarts in every window."""
        parts = [block.project(h, tokens, read=read) for h, tokens in self._parts(h_BTE, tokens_BT)]
        fields = zip(*parts, strict=True)
        return DeltaInputs(*(None if f[0] is None else _join(list(f), len(h_BTE)) for f in fields))  # type: ignore[arg-type]

    def _parts(self, h_BTE: Tensor, tokens_BT: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        parts = self.batches(h_BTE)
        return zip(parts, [None] * len(parts) if tokens_BT is None else self.batches(tokens_BT), strict=True)


def _join(parts: list[Tensor], B: int) -> Tensor:
    """Undo ``_Layout.batches``."""
    flat = [x.reshape(B, -1, *x.shape[2:]) for x in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 1)
