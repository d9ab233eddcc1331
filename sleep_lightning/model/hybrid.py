"""HybridLM: attention and fast-weight blocks in any order. It reads windows; it does not know what sleep is."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import Block, RMSNorm
from sleep_lightning.model.delta_net import DeltaNet
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.gated_delta_net import GatedDeltaNet
from sleep_lightning.model.gated_hebbian import GatedHebbian
from sleep_lightning.model.jet import JetBlock
from sleep_lightning.model.memory import Memory
from sleep_lightning.ops import Rule
from sleep_lightning.ops.dtype import at_least_fp32

MEMORY_MIXERS: dict[str, type[FastWeights]] = {"G": GatedDeltaNet, "H": GatedHebbian, "D": DeltaNet, "J": JetBlock}
"""The letters of ``model.pattern`` whose blocks hold memory."""


@dataclass
class ModelConfig:
    d_model: int = 64
    """Width of the residual stream."""
    pattern: str = "AGAG"
    """One letter per block, first to last: A attention; G gated delta net, H gated Hebbian, D DeltaNet, J Jet block."""
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
    rope_base: float = 10000.0
    """Base of the rotary position embedding."""
    tie_embeddings: bool = True
    """Use the embedding matrix as the output head."""
    allow_neg_eigval: bool = False
    """Write strengths in (0, 2) instead of (0, 1)."""
    norm_eps: float = 1e-6
    """Epsilon of every RMSNorm."""
    backend: str = "auto"
    """Implementation of the memory rules: auto, or a name the error message lists."""

    def __post_init__(self) -> None:
        if not self.pattern or set(self.pattern) - {"A", *MEMORY_MIXERS}:
            raise ValueError(
                f"model.pattern={self.pattern!r} must be one or more of the letters A, {', '.join(MEMORY_MIXERS)}; "
                f"try AGAG"
            )
        for key in ("d_model", "n_heads", "gdn_heads", "key_dim", "d_ff"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"model.{key}={value} must be at least 1")
        if self.conv_size < 0:
            raise ValueError(f"model.conv_size={self.conv_size} must be 0 (no convolution) or more; try 4")
        if not self.conv_size and "J" in self.pattern:
            raise ValueError(
                f"model.conv_size=0 takes from the J in model.pattern={self.pattern!r} the convolution that makes it a "
                f"Jet block; use G, or model.conv_size=4"
            )
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
    def last_memory(self) -> int:
        """Index of the last block that holds memory; -1: none does."""
        return max(map(self.pattern.rfind, MEMORY_MIXERS))

    @property
    def rules(self) -> list[Rule]:
        """The memory rules that the pattern uses, each once."""
        return list({r.name: r for r in (MEMORY_MIXERS[x].rule for x in self.pattern if x in MEMORY_MIXERS)}.values())

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


class HybridLM(nn.Module):
    """A hybrid language model over one window at a time.

    ``embed`` -> ``blocks`` (once, or N times: that is ``sleep.py``'s business) -> ``logits``.

    Args:
        config: sizes and pattern.
        vocab_size: number of tokens of the task.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.layers = nn.ModuleList(
            Block(self._mixer(letter), config.d_model, config.mlp_width, config.norm_eps) for letter in config.pattern
        )
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        self.reset_parameters()
        self.compiled = False

    def compile_passes(self) -> None:
        """torch.compile one pass (``blocks`` and ``write``), whole and with static shapes.

        A graph is made for each window length, batch size and grad mode that comes by, and then used for all
        windows, passes and N. The memory must require grad from the first window on (``zero_memory`` sees to it).
        """
        self._run = torch.compile(self._run, dynamic=False, fullgraph=True)  # type: ignore[method-assign]
        self.compiled = True

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

    def zero_memory(self, batch_size: int, *, carry_conv_state: bool = False) -> Memory:
        """Memory before the first window: all zeros (there is no learned init)."""
        states = tuple(m.zero_state(batch_size) for m in self.memory_layers)
        carried = carry_conv_state and self.config.conv_size > 0
        if self.compiled and torch.is_grad_enabled():  # else the first window would get a graph of its own
            states = tuple(state.requires_grad_() for state in states)
        return Memory(states, tuple(m.zero_conv(batch_size) for m in self.memory_layers) if carried else ())

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Token ids ``[B, T]`` -> hidden states ``[B, T, d_model]``."""
        return self.embedding(tokens_BT)

    def blocks(self, h: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One pass over one window: ``h`` ``[B, T, d_model]`` and memory in, both out."""
        return self._run(h, memory, stop_at=None)

    def write(self, h: Tensor, memory: Memory) -> Memory:
        """One pass of which only the memory is wanted: equal to ``blocks(h, memory)[1]``, without the dead tail.

        Everything after the last state write (its read-out, its MLP, later attention blocks) is not run.
        """
        last = self.config.last_memory
        return memory if last < 0 else self._run(h, memory, stop_at=last)[1]

    def _run(self, h: Tensor, memory: Memory, stop_at: int | None) -> tuple[Tensor, Memory]:
        states, conv, i = list(memory.states), list(memory.conv), 0
        for index, block in enumerate(self.stack):
            x = block.mixer_norm(h)
            if isinstance(block.mixer, Attention):
                h = h + block.mixer(x)
            else:
                out = block.mixer(x, states[i], conv[i] if conv else None, read=index != stop_at)
                states[i] = out.state
                if out.conv is not None:
                    conv[i] = out.conv
                if out.y is None:
                    break
                h, i = h + out.y, i + 1
            h = block.feed_forward(h)
        return h, Memory(tuple(states), tuple(conv))

    def logits(self, h: Tensor) -> Tensor:
        """Hidden states ``[B, T, d_model]`` -> fp32 logits ``[B, T, vocab]``."""
        return at_least_fp32(self.head(self.norm(h)))
