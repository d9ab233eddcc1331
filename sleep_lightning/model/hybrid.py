"""HybridLM: attention and fast-weight blocks in any order. It reads windows; it does not know what sleep is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import Block, RMSNorm
from sleep_lightning.model.config import MEMORY_MIXERS, ModelConfig
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.memory import Memory
from sleep_lightning.model.shared_weights import shared_dtype
from sleep_lightning.ops.dtype import at_least_fp32


class HybridLM(nn.Module):
    """A hybrid language model over one window at a time.

    ``embed`` -> ``blocks`` (once, or N times: that is the business of ``sleep``) -> ``logits``.

    Args:
        config: sizes and pattern.
        vocab_size: number of tokens of the task.
        neutral_pad: token that is not attended to, writes nothing and lets nothing decay; None if there is none.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, neutral_pad: int | None = None) -> None:
        super().__init__()
        self.config, self.neutral_pad = config, neutral_pad
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.layers = nn.ModuleList(
            Block(self._mixer(letter), config.d_model, config.mlp_width, config.norm_eps) for letter in config.pattern
        )
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        if config.summary_tokens:
            self.summary = nn.Parameter(torch.empty(config.summary_tokens, config.d_model))
        self.reset_parameters()
        self.compiled = False
        self.shares_weights = True
        """False: ``shared_weights`` changes nothing (weights are there only while a block's ``forward`` runs, say)."""

    def compile_passes(self) -> None:
        """torch.compile one pass (``blocks`` and ``write``), whole and with static shapes.

        A graph is made for each window length, batch size and grad mode that comes by, and then used for all
        windows, passes and N. The memory must require grad from the first window on (``zero_memory`` sees to it).
        """
        self._run = torch.compile(self._run, dynamic=False, fullgraph=True)  # type: ignore[method-assign]
        self.compiled, self.shares_weights = True, False

    def _mixer(self, letter: str) -> Attention | FastWeights:
        c = self.config
        if letter == "A":
            return Attention(c.d_model, c.n_heads, c.rope_base)
        return MEMORY_MIXERS[letter](
            c.d_model,
            c.fast_weight_heads,
            c.key_dim_per_head,
            c.value_dim_per_head,
            c.conv_size,
            c.norm_eps,
            c.allow_neg_eigval,
            c.backend,
        )

    def reset_parameters(self) -> None:
        """Linear weights N(0, 1/fan_in), residual outputs scaled down with depth, embedding N(0, 1/d_model).

        A Jet block's taps start as their bias.
        """
        gains = {"out_proj": (2 * len(self.layers)) ** -0.5, "tap_proj": 0.0}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                gain = gains.get(name.rpartition(".")[2], 1.0)
                nn.init.normal_(module.weight, std=gain * module.in_features**-0.5)
        nn.init.normal_(self.embedding.weight, std=self.config.d_model**-0.5)
        if self.config.summary_tokens:
            nn.init.normal_(self.summary, std=self.config.d_model**-0.5)

    @property
    def memory_layers(self) -> list[FastWeights]:
        """The layers that hold fast weights, first to last."""
        return [layer.mixer for layer in self.stack if isinstance(layer.mixer, FastWeights)]

    def state_bytes(self, *, carry_conv_state: bool = False) -> list[int]:
        """Bytes of one sequence's memory in each layer that holds some: what crosses a window."""
        return [m.state_bytes(carry_conv_state=carry_conv_state) for m in self.memory_layers]

    @property
    def stack(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.layers))

    def zero_memory(self, batch_size: int, *, carry_conv_state: bool = False, cached_tokens: int = 0) -> Memory:
        """Memory before the first window: all zeros (there is no learned init).

        Args:
            batch_size: sequences.
            carry_conv_state: make room for the short convolutions' inputs.
            cached_tokens: keys and values that attention keeps over windows (sliding eviction: L - 1).
        """
        states = tuple(m.zero_state(batch_size) for m in self.memory_layers)
        carried = carry_conv_state and self.config.conv_size > 0
        if self.compiled and torch.is_grad_enabled():  # else the first window would get a graph of its own
            states = tuple(state.requires_grad_() for state in states)
        conv = tuple(m.zero_conv(batch_size) for m in self.memory_layers) if carried else ()
        c, weight = self.config, self.norm.weight
        summaries = (weight.new_zeros(batch_size, 0, c.d_model),) if c.summary_tokens else ()
        if not cached_tokens or "A" not in c.pattern:
            return Memory(states, conv, summaries=summaries)
        size = (batch_size, cached_tokens, 2, c.n_heads, c.d_model // c.n_heads)
        kv = tuple(weight.new_zeros(size) for letter in c.pattern if letter == "A")
        return Memory(states, conv, kv, (weight.new_zeros(batch_size, cached_tokens),))

    @contextmanager
    def shared_weights(self, tokens: int) -> Iterator[None]:
        """Inside, all windows and passes run on weights laid out once, their gradients summed in place.

        It holds one forward and its backward, in which weights must not change; results are the same to rounding.
        On CPU only, with the C++ kernels: elsewhere, and in a compiled or sharded model, nothing is different inside.

        Args:
            tokens: how many are embedded inside. Where the vocabulary is smaller, the first block projects that.
        """
        dtype = shared_dtype(list(self.layers.parameters())) if self.shares_weights else None
        if dtype is None or self.stack[0].shared is not None:
            yield
            return
        vocabulary = self.embedding.num_embeddings
        try:
            for i, block in enumerate(self.stack):
                block.share(dtype, self.embedding.weight if i == 0 and 2 * vocabulary <= tokens else None)
            yield
        finally:
            for block in self.stack:
                block.shared = None

    @contextmanager
    def mlps_recomputed(self, wanted: bool) -> Iterator[None]:
        """What is run inside makes the projections of its MLPs again in the backward instead of keeping them, if that
        is wanted: they are the most that a block keeps, 2 ``mlp_width`` numbers a token."""
        try:
            for block in self.stack:
                block.recomputes_mlp = wanted
            yield
        finally:
            for block in self.stack:
                block.recomputes_mlp = False

    @property
    def shared_bytes(self) -> int:
        """Bytes that weights laid out once take above the parameters, inside ``shared_weights``; 0 outside."""
        return sum(block.shared.nbytes for block in self.stack if block.shared is not None)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Token ids ``[B, T]`` -> hidden states ``[B, T, d_model]``."""
        return self.embedding(tokens_BT)

    def padding(self, tokens_BT: Tensor) -> Tensor | None:
        """Where neutral pads are, ``[B, T]`` bool; None for a model that knows none."""
        return None if self.neutral_pad is None else tokens_BT == self.neutral_pad

    def blocks(
        self,
        h: Tensor,
        memory: Memory,
        pad: Tensor | None = None,
        part: range | None = None,
        tokens: Tensor | None = None,
    ) -> tuple[Tensor, Memory]:
        """One pass over one window: ``h`` ``[B, T, d_model]`` and memory in, both out.

        Args:
            h: hidden states.
            memory: what earlier windows left.
            pad: neutral pads ``[B, T]``, from ``padding``.
            part: consecutive blocks to run; None for all.
            tokens: ids ``[B, T]`` if h is their embedding (their first projections may then be looked up).
        """
        return self._run(h, memory, pad, range(len(self.config.pattern)) if part is None else part, None, tokens)

    def write(
        self,
        h: Tensor,
        memory: Memory,
        pad: Tensor | None = None,
        part: range | None = None,
        tokens: Tensor | None = None,
    ) -> Memory:
        """One pass of which only the memory is wanted: equal to ``blocks(...)[1]``, without the dead tail.

        Everything after the last write (its read-out, its MLP, later blocks) is not run.
        """
        last = self.config.last_writer(part, cached=bool(memory.kv))
        if last < 0:
            return memory
        return self._run(h, memory, pad, range(part.start if part else 0, last + 1), last, tokens)[1]

    def _run(
        self, h: Tensor, memory: Memory, pad: Tensor | None, part: range, stop_at: int | None, tokens: Tensor | None
    ) -> tuple[Tensor, Memory]:
        states, conv, kv = list(memory.states), list(memory.conv), list(memory.kv)
        before = self.config.pattern[: part.start]
        attention = before.count("A")
        i = len(before) - attention
        for index in part:
            block, read = self.stack[index], index != stop_at
            known = tokens if index == 0 else None
            if isinstance(block.mixer, Attention):
                if kv:
                    out, kv[attention], _ = block(h, kv[attention], None, memory.present[0], pad, read=read)
                else:
                    out = block(h, pad=pad, tokens=known).h
                attention += 1
            else:
                carried = conv[i] if conv else None
                out, states[i], carried = block(h, states[i], carried, pad=pad, tokens=known, read=read)
                if carried is not None:
                    conv[i] = carried
                i += 1
            if out is None:
                break
            h = out
        return h, Memory(tuple(states), tuple(conv), tuple(kv), memory.present, memory.summaries)

    def logits(self, h: Tensor) -> Tensor:
        """Hidden states ``[B, T, d_model]`` -> fp32 logits ``[B, T, vocab]``."""
        return at_least_fp32(self.head(self.norm(h)))
