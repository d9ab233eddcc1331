"""Algorithm 1 layer by layer over all windows at once: the same result as ``run_window_loop``, where that is legal.

With the paper's feedback (pass n + 1 reads the hidden states of pass n) passes are strictly sequential. Without
it (N = 1, or ``pass_input: embed``) no layer waits for a later one, so each runs once over everything: attention
as a batch of windows, the fast weights as one long recurrence over all windows and passes. What lies before the
first state is read is the same in every pass and computed once; what lies after the last state is written is
computed only for the windows that answer.

Virtual time: every sleeping window N times in a row, every other once. All windows have L tokens but the last.

It is taken only where every option and every part of the model is on a list of those known to allow it: a new one runs
window by window until someone proves it here (``tests/sleep/test_layerwise.py`` compares both in float64).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory, WindowModel
from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import Block
from sleep_lightning.model.delta_net import DeltaNet
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.gated_delta_net import GatedDeltaNet
from sleep_lightning.model.gated_hebbian import GatedHebbian
from sleep_lightning.model.jet import JetBlock
from sleep_lightning.ops import DeltaInputs
from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.schedule import PlannedWindow

Executor = Literal["auto", "windows"]
"""``auto``: layer by layer where that is legal; ``windows``: always the window loop."""


ANY: tuple[Any, ...] = ()
"""Every value of an option is legal."""

LEGAL_SLEEP: dict[str, tuple[Any, ...]] = {
    "window_size": ANY,
    "n_passes": ANY,
    "eviction": ("hard",),  # sliding lets a window attend to the one before
    "loop": ("all",),
    "wake_passes": (1,),
    "retrieved_windows": (0,),
    "pass_input": ("embed",),  # the others feed every pass with the one before
    "loop_norm": ANY,  # is not applied to embeddings
    "reset_memory_between_passes": (False,),
    "carry_conv_state": (False,),
}
"""Values of ``SleepConfig`` under which windows and passes need not wait for each other."""
LEGAL_SLEEP_ONCE = LEGAL_SLEEP | {
    "n_passes": (1,),
    "loop": ANY,
    "looped": ANY,
    "pass_input": ANY,
    "reset_memory_between_passes": ANY,
}
"""The same for N = 1, where nothing crosses passes."""
LEGAL_MODEL: dict[str, tuple[Any, ...]] = {
    "d_model": ANY,
    "pattern": ANY,  # its mixers: LEGAL_MIXERS
    "memory_rules": ANY,  # likewise
    "n_heads": ANY,
    "kv_heads": ANY,
    "head_dim": ANY,
    "attention_windows": ANY,
    "qkv_bias": ANY,
    "attention_gate": ANY,
    "value_dim": ANY,
    "value_heads": ANY,
    "gdn_heads": ANY,
    "key_dim": ANY,
    "expand_v": ANY,
    "d_ff": ANY,
    "conv_size": ANY,
    "summary_tokens": (0,),  # windows wait for summaries
    "rope_base": ANY,
    "rope_fraction": ANY,
    "rope_scaling": ANY,
    "tie_embeddings": ANY,
    "embedding_std": ANY,
    "residual_scale": ANY,
    "output_init": ANY,
    "qk_norm": ANY,
    "logit_softcap": ANY,
    "max_decay_rate": ANY,
    "gate_proj": ANY,
    "allow_neg_eigval": ANY,
    "norm_eps": ANY,
    "output_norm_eps": ANY,
    "norm_placement": ANY,
    "norm_offset": ANY,
    "vocab_size": ANY,
    "pretrained": ANY,
    "insert": ANY,
    "lora": ANY,  # adapters are part of the projections
    "qk_l2norm_eps": ANY,
    "backend": ANY,
}
"""Values of ``ModelConfig`` likewise."""
LEGAL_MIXERS = (Attention, GatedDeltaNet, GatedHebbian, DeltaNet, JetBlock)
"""Mixers that are exactly ``project``, ``scan`` and ``read_out``."""


def not_known_legal(model: WindowModel, config: SleepConfig) -> str | None:
    """The first thing that is not known to allow this executor, as ``key=value`` or a name; None: it is legal."""
    if not isinstance(model, HybridLM) or type(model) is not HybridLM:
        return type(model).__name__
    mixers = (type(block.mixer) for block in model.stack)
    if (unknown := next((m for m in mixers if m not in LEGAL_MIXERS), None)) is not None:
        return unknown.__name__
    if model.neutral_pad is not None:  # left out window by window
        return f"neutral_pad={model.neutral_pad}"
    legal = LEGAL_SLEEP_ONCE if config.n_passes == 1 else LEGAL_SLEEP
    legal = legal | {"grad_passes": (None, config.n_passes)}  # passes are not treated differently
    return _first_not_in(config, legal, "sleep") or _first_not_in(model.config, LEGAL_MODEL, "model")


def _first_not_in(options: Any, legal: Mapping[str, tuple[Any, ...]], section: str) -> str | None:
    """An option that is not on the list is legal at its default: there it changes nothing."""
    for field in fields(options):
        value, allowed = getattr(options, field.name), legal.get(field.name, (field.default,))
        if allowed is not ANY and value not in allowed:
            return f"{section}.{field.name}={value}"
    return None


def is_layerwise_legal(model: WindowModel, config: SleepConfig) -> TypeGuard[HybridLM]:
    """Whether layer by layer is known to be the same as the window loop."""
    return not_known_legal(model, config) is None


def run_layerwise(
    model: HybridLM, tokens_BT: Tensor, planned: Sequence[PlannedWindow], memory: Memory
) -> tuple[dict[int, Tensor], Memory]:
    """Consecutive windows at once.

    Args:
        model: the hybrid.
        tokens_BT: token ids of the whole batch.
        planned: consecutive windows of a schedule; all but the last of one length. ``is_layerwise_legal`` must hold.
        memory: memory before the first of them.

    Returns:
        Hidden states ``[B, <= L, d_model]`` of the windows that do not sleep, by their index in ``planned``, and
        the memory after the last window.
    """
    layout = _Layout(planned)
    h = model.embed(tokens_BT[:, planned[0].window.start : planned[-1].window.stop])
    states, i, last = list(memory.states), 0, max(model.writers(), default=-1)
    if last < 0:  # no memory: only the windows that answer matter
        h, layout = layout.answering(h), layout.awake
    for index, block in enumerate(model.stack):
        if not layout.names:
            break
        if isinstance(block.mixer, Attention):
            h = block.run(_attend, layout, h)
        else:
            h, layout, states[i] = block.run(_remember, layout, h, states[i], unroll=i == 0, last=index == last)
            i += 1
    return dict(zip(layout.names, h.split(layout.lengths, 1), strict=True)), Memory(tuple(states))


def _attend(block: Block, layout: "_Layout", h: Tensor) -> Tensor:
    """A block of attention."""
    return block.feed_forward(layout.attend(block, h), recompute=layout.recomputes_mlp)


def _remember(
    block: Block, layout: "_Layout", h: Tensor, state: Tensor, *, unroll: bool, last: bool
) -> tuple[Tensor, "_Layout", Tensor]:
    """A block of fast weights: hidden states, their layout and the state behind it."""
    mixer, recompute = block.mixer, layout.recomputes_mlp
    assert isinstance(mixer, FastWeights)
    if last:
        h, state = _answer(block, mixer, h, layout, state, unroll=unroll)
        return block.feed_forward(h, recompute=recompute), layout.awake, state
    projections = layout.project(block, h, read=True)
    if unroll:
        projections, (h, layout) = projections.map(layout.unroll), (layout.unroll(h), layout.unrolled())
    o, state = mixer.scan(projections, state)
    assert o is not None
    return block.feed_forward(block.read_out(h, o, projections), recompute=recompute), layout, state


def _answer(
    block: Block, mixer: FastWeights, h_BTE: Tensor, layout: "_Layout", state: Tensor, *, unroll: bool
) -> tuple[Tensor, Tensor]:
    """The last fast-weight layer: everything writes; only windows that answer read, ``[B, their tokens, E]``."""
    answers = [h_BTE[:, :0]]
    for run, h in layout.runs(h_BTE):
        projections = run.project(block, h, read=not run.sleeps[0])
        o, state = mixer.scan(projections.map(run.unroll) if unroll else projections, state)
        if o is not None:
            answers.append(block.read_out(h, o, projections))
    return torch.cat(answers, 1), state


class _Layout:
    """Where windows lie along the token axis: ``[B, sum(lengths), ...]``; ``names`` are indices into the schedule."""

    def __init__(self, planned: Sequence[PlannedWindow], names: list[int] | None = None) -> None:
        self.planned = planned
        self.names = list(range(len(planned))) if names is None else names
        windows = [planned[n].window for n in self.names]
        self.lengths = [window.stop - window.start for window in windows]
        self.sleeps = [window.sleeps for window in windows]
        self.recomputes_mlp = any(p.recompute == "mlp" for p in planned[0].passes)

    def subset(self, names: list[int]) -> "_Layout":
        return _Layout(self.planned, names)

    def unrolled(self) -> "_Layout":
        """The layout in virtual time: a window once for each pass of the core."""
        return self.subset([n for n in self.names for p in self.planned[n].passes if p.part == "core"])

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
        for _, group in groupby(self.names, key=lambda n: self.planned[n].window.sleeps):
            run = self.subset(list(group))
            yield run, x[:, start : start + sum(run.lengths)]
            start += sum(run.lengths)

    def batches(self, x: Tensor) -> list[Tensor]:
        """``[B, T, ...]`` as batches ``[B * n, length, ...]`` of windows of one length: the last may be shorter."""
        groups = [(length, len(list(group))) for length, group in groupby(self.lengths)]
        parts = x.split([length * n for length, n in groups], 1)
        return [part.reshape(-1, length, *x.shape[2:]) for part, (length, _) in zip(parts, groups, strict=True)]

    def attend(self, block: Block, h_BTE: Tensor) -> Tensor:
        """The hidden states behind attention inside each window."""
        return _join([block.attend(h) for h in self.batches(h_BTE)], len(h_BTE))

    def project(self, block: Block, h_BTE: Tensor, *, read: bool) -> DeltaInputs:
        """The rule's inputs, ``[B, T, ...]``; the convolution restarts in every window."""
        parts = [block.project(h, read=read) for h in self.batches(h_BTE)]
        fields = zip(*parts, strict=True)
        return DeltaInputs(*(None if f[0] is None else _join(list(f), len(h_BTE)) for f in fields))  # type: ignore[arg-type]


def _join(parts: list[Tensor], B: int) -> Tensor:
    """Undo ``_Layout.batches``."""
    flat = [x.reshape(B, -1, *x.shape[2:]) for x in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 1)
