"""HybridLM: attention and gated-delta-net blocks in any order. It reads windows; it does not know what sleep is."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import Block, RMSNorm
from sleep_lightning.model.gated_delta_net import GatedDeltaNet
from sleep_lightning.model.memory import Memory
from sleep_lightning.ops.dtype import at_least_fp32

MEMORY_LETTERS = "G"
"""Letters of a pattern that stand for blocks with fast weights."""


@dataclass
class ModelConfig:
    d_model: int = 64
    """Width of the residual stream."""
    pattern: str = "AGAG"
    """One letter per block, first to last: A attention, G gated delta net."""
    n_heads: int = 2
    """Attention heads."""
    gdn_heads: int | None = None
    """Fast-weight heads; null: n_heads."""
    key_dim: int | None = None
    """Key dim of a fast-weight head; null: d_model / gdn_heads."""
    expand_v: float = 1.0
    """Value dim of a fast-weight head over its key dim."""
    d_ff: int | None = None
    """Width of the SwiGLU; null: 8/3 d_model rounded up to a multiple of 64."""
    conv_size: int = 4
    """Taps of the short convolution in front of the fast weights; 0 for none."""
    summary_tokens: int = 0
    """m: learned summary tokens that every window leaves in the context (a control: compaction)."""
    rope_base: float = 10000.0
    """Base of the rotary position embedding."""
    tie_embeddings: bool = True
    """Use the embedding matrix as the output head."""
    allow_neg_eigval: bool = False
    """Write strengths in (0, 2) instead of (0, 1)."""
    norm_eps: float = 1e-6
    """Epsilon of every RMSNorm."""
    backend: str = "auto"
    """Implementation of the gated delta rule: auto, or a name the error message lists."""

    def __post_init__(self) -> None:
        if not self.pattern or set(self.pattern) - set("AG"):
            raise ValueError(f"model.pattern={self.pattern!r} must be one or more of the letters A and G; try AGAG")
        for key in ("d_model", "n_heads", "gdn_heads", "key_dim", "d_ff"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"model.{key}={value} must be at least 1")
        if self.summary_tokens < 0:
            raise ValueError(f"model.summary_tokens={self.summary_tokens} must be 0 (no compaction) or more")
        if self.conv_size < 0:
            raise ValueError(f"model.conv_size={self.conv_size} must be 0 (no convolution) or more; try 4")
        if self.d_model % self.n_heads or self.d_model // self.n_heads % 2:
            fits = [n for n in range(1, self.d_model + 1) if self.d_model % n == 0 and self.d_model // n % 2 == 0]
            raise ValueError(
                f"model.n_heads={self.n_heads} does not divide model.d_model={self.d_model} into even head dims "
                f"(RoPE turns pairs); use one of {fits}"
                if fits
                else f"model.d_model={self.d_model} must be even"
            )
        if self.key_dim is None and self.d_model % (self.gdn_heads or self.n_heads):
            raise ValueError(
                f"model.gdn_heads={self.gdn_heads} does not divide model.d_model={self.d_model}; "
                f"choose a divisor or set model.key_dim"
            )
        if self.value_dim_per_head < 1 or self.value_dim_per_head != self.key_dim_per_head * self.expand_v:
            raise ValueError(
                f"model.expand_v={self.expand_v} times the key dim {self.key_dim_per_head} must be a whole number "
                f">= 1; try 1 or 2"
            )

    @property
    def fast_weight_heads(self) -> int:
        return self.gdn_heads or self.n_heads

    @property
    def key_dim_per_head(self) -> int:
        return self.key_dim or self.d_model // self.fast_weight_heads

    @property
    def value_dim_per_head(self) -> int:
        return int(self.key_dim_per_head * self.expand_v)

    @property
    def mlp_width(self) -> int:
        return self.d_ff or -(-8 * self.d_model // (3 * 64)) * 64

    def last_writer(self, part: range | None = None, *, cached: bool = False) -> int:
        """The last block (of a part) that leaves something for later windows; -1 if none does.

        Fast weights do; attention does only where its keys and values are ``cached`` over windows.
        """
        letters = MEMORY_LETTERS + "A" * cached
        blocks = range(len(self.pattern)) if part is None else part
        return max((i for i in blocks if self.pattern[i] in letters), default=-1)


class HybridLM(nn.Module):
    """A hybrid language model over one window at a time.

    ``embed`` -> ``blocks`` (once, or N times: that is ``sleep.py``'s business) -> ``logits``.

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

    def compile_passes(self) -> None:
        """torch.compile one pass (``blocks`` and ``write``), whole and with static shapes.

        A graph is made for each window length, batch size and grad mode that comes by, and then used for all
        windows, passes and N. The memory must require grad from the first window on (``zero_memory`` sees to it).
        """
        self._run = torch.compile(self._run, dynamic=False, fullgraph=True)  # type: ignore[method-assign]
        self.compiled = True

    def _mixer(self, letter: str) -> Attention | GatedDeltaNet:
        c = self.config
        if letter == "A":
            return Attention(c.d_model, c.n_heads, c.rope_base)
        return GatedDeltaNet(
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
        """Linear weights N(0, 1/fan_in), residual outputs scaled down with depth, embedding N(0, 1/d_model)."""
        depth = (2 * len(self.layers)) ** -0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                gain = depth if name.endswith("out_proj") else 1.0
                nn.init.normal_(module.weight, std=gain * module.in_features**-0.5)
        nn.init.normal_(self.embedding.weight, std=self.config.d_model**-0.5)
        if self.config.summary_tokens:
            nn.init.normal_(self.summary, std=self.config.d_model**-0.5)

    @property
    def memory_layers(self) -> list[GatedDeltaNet]:
        """The layers that hold fast weights, first to last."""
        return [layer.mixer for layer in self.stack if isinstance(layer.mixer, GatedDeltaNet)]

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
        states = tuple(m.A_log.new_zeros(batch_size, m.n_heads, m.key_dim, m.value_dim) for m in self.memory_layers)
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

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Token ids ``[B, T]`` -> hidden states ``[B, T, d_model]``."""
        return self.embedding(tokens_BT)

    def padding(self, tokens_BT: Tensor) -> Tensor | None:
        """Where neutral pads are, ``[B, T]`` bool; None for a model that knows none."""
        return None if self.neutral_pad is None else tokens_BT == self.neutral_pad

    def blocks(
        self, h: Tensor, memory: Memory, pad: Tensor | None = None, part: range | None = None
    ) -> tuple[Tensor, Memory]:
        """One pass over one window: ``h`` ``[B, T, d_model]`` and memory in, both out.

        Args:
            h: hidden states.
            memory: what earlier windows left.
            pad: neutral pads ``[B, T]``, from ``padding``.
            part: consecutive blocks to run; None for all.
        """
        return self._run(h, memory, pad, range(len(self.config.pattern)) if part is None else part, None)

    def write(self, h: Tensor, memory: Memory, pad: Tensor | None = None, part: range | None = None) -> Memory:
        """One pass of which only the memory is wanted: equal to ``blocks(...)[1]``, without the dead tail.

        Everything after the last write (its read-out, its MLP, later blocks) is not run.
        """
        last = self.config.last_writer(part, cached=bool(memory.kv))
        if last < 0:
            return memory
        return self._run(h, memory, pad, range(part.start if part else 0, last + 1), last)[1]

    def _run(
        self, h: Tensor, memory: Memory, pad: Tensor | None, part: range, stop_at: int | None
    ) -> tuple[Tensor, Memory]:
        states, conv, kv = list(memory.states), list(memory.conv), list(memory.kv)
        before = self.config.pattern[: part.start]
        attention = before.count("A")
        i = len(before) - attention
        for index in part:
            block = self.stack[index]
            x = block.mixer_norm(h)
            if isinstance(block.mixer, Attention):
                if kv:
                    y, kv[attention] = block.mixer.slide(x, kv[attention], memory.present[0], pad, index != stop_at)
                else:
                    y = block.mixer(x, pad)
                attention += 1
            else:
                out = block.mixer(x, states[i], conv[i] if conv else None, read=index != stop_at, pad=pad)
                y, states[i] = out.y, out.state
                if out.conv is not None:
                    conv[i] = out.conv
                i += 1
            if y is None:
                break
            h = block.feed_forward(h + y)
        return h, Memory(tuple(states), tuple(conv), tuple(kv), memory.present, memory.summaries)

    def logits(self, h: Tensor) -> Tensor:
        """Hidden states ``[B, T, d_model]`` -> fp32 logits ``[B, T, vocab]``."""
        return at_least_fp32(self.head(self.norm(h)))
