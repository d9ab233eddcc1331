"""Sizes and pattern of the hybrid, and which letter stands for which memory rule."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from sleep_lightning.model.delta_net import DeltaNet
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.gated_delta_net import GatedDeltaNet
from sleep_lightning.model.gated_hebbian import GatedHebbian
from sleep_lightning.model.jet import JetBlock
from sleep_lightning.model.rope import check_scaling
from sleep_lightning.ops import Rule

ATTENTION = "A"
"""The letter of ``model.pattern`` for a block with attention."""
MEMORY_MIXERS: dict[str, type[FastWeights]] = {"G": GatedDeltaNet, "H": GatedHebbian, "D": DeltaNet, "J": JetBlock}
"""The letters of ``model.pattern`` whose blocks hold memory."""


def divisors(number: int) -> list[int]:
    """All of them, in order, in a time that grows with the root of the number."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*low, *(number // n for n in low)})


@dataclass
class ModelConfig:
    """Section ``model``: sizes and order of the blocks. Raises ValueError for sizes that do not fit together."""

    d_model: int = field(default=64, metadata={"high": 2**17})
    """Width of the residual stream."""
    pattern: str = "AGAG"
    """One letter per block, first to last: A attention; G gated delta net, H gated Hebbian, D DeltaNet, J Jet block;
    or a letter of memory_rules. In lower case (a, g, ...): a block without an MLP."""
    memory_rules: dict[str, Any] = field(default_factory=dict)
    """Further letters: {X: {class_path: my_package.Oja, init_args: {...}}}, subclasses of FastWeights."""
    n_heads: int = field(default=2, metadata={"high": 2**17})
    """Attention heads."""
    kv_heads: int | None = field(default=None, metadata={"high": 2**17})
    """Heads of keys and values in attention, a divisor of n_heads (grouped-query attention); null: n_heads."""
    head_dim: int | None = field(default=None, metadata={"high": 2**17})
    """Width of an attention head; null: d_model / n_heads."""
    attention_windows: list[int] = field(default_factory=list, metadata={"low": 0, "high": 2**31 - 1})
    """Tokens that a token sees in each block of attention, itself among them, first block to last; 0: all; empty: all
    everywhere."""
    qkv_bias: bool = False
    """Biases on attention's queries, keys and values."""
    attention_gate: bool = False
    """Attention's output times the sigmoid of a projection of its own."""
    gdn_heads: int | None = field(default=None, metadata={"high": 2**17})
    """Fast-weight heads; null: n_heads."""
    key_dim: int | None = field(default=None, metadata={"high": 2**17})
    """Key dim of a fast-weight head; null: d_model / gdn_heads."""
    expand_v: float = field(default=1.0, metadata={"low": 0, "high": 1024})
    """Value dim of a fast-weight head over its key dim."""
    value_dim: int | None = field(default=None, metadata={"high": 2**17})
    """Value dim of a fast-weight head; null: expand_v times the key dim."""
    value_heads: int | None = field(default=None, metadata={"high": 2**17})
    """Heads of the fast weights' values and states, a multiple of gdn_heads (grouped values); null: gdn_heads."""
    d_ff: int | None = field(default=None, metadata={"high": 2**20})
    """Width of the SwiGLU; null: 8/3 d_model rounded up to a multiple of 64."""
    conv_size: int = field(default=4, metadata={"high": 2**16})
    """Taps of the short convolution in front of the fast weights; 0 for none."""
    summary_tokens: int = field(default=0, metadata={"high": 2**16})
    """m: learned summary tokens that every window leaves in the context (a control: compaction)."""
    rope_base: float = 10000.0
    """Base of the rotary position embedding."""
    rope_fraction: float = field(default=1.0, metadata={"low": 0, "high": 1})
    """Share of a head's dims, its first, that RoPE rotates."""
    rope_scaling: dict[str, Any] = field(default_factory=dict)
    """RoPE over a longer context, as in a config.json: {rope_type: linear, llama3 or yarn, factor: 8, ...}."""
    tie_embeddings: bool = False
    """Use the embedding matrix as the output head."""
    embedding_std: float | None = 1.0
    """Standard deviation of the initial embeddings, against block outputs of about 1; null: d_model^-1/2."""
    residual_scale: float | None = None
    """Factor on what mixers and MLPs add to the residual stream; null: 1 / N of the training: N passes add as much
    as one."""
    output_init: Literal["depth", "zero"] = "depth"
    """Initial output projections of mixers and MLPs: scaled by (2 n_blocks)^-1/2, or zero."""
    qk_norm: bool = True
    """RMSNorm of the queries and keys of attention, head by head, in front of RoPE."""
    logit_softcap: float | None = None
    """c: logits are c tanh(logits / c); null: as they are."""
    max_decay_rate: float = 0.25
    """A of the decay gates starts uniform in (0, this): 16 as in Mamba-2 and GDN; less: a memory that starts slow."""
    gate_proj: Literal["fused", "separate"] = "separate"
    """Decay and write gates: rows of the fused input projection, which Muon updates, or a projection of their own with
    a bias, which AdamW updates."""
    allow_neg_eigval: bool = False
    """Write strengths in (0, 2) instead of (0, 1)."""
    norm_eps: float = 1e-6
    """Epsilon of every RMSNorm."""
    output_norm_eps: float | None = None
    """Epsilon of the norm behind the fast weights; null: norm_eps."""
    norm_placement: Literal["pre", "sandwich"] = "pre"
    """Norms in front of mixers and MLPs, or behind them too (but for blocks without an MLP)."""
    norm_offset: bool = False
    """Norms multiply by 1 + w instead of w; not that behind the fast weights."""
    vocab_size: int | None = field(default=None, metadata={"high": 2**24})
    """Rows of embedding and head; null: the task's tokens."""
    pretrained: str | None = None
    """Directory with config.json and safetensors that gives sizes and initial weights: llama, mistral, qwen2, qwen3,
    qwen3_5, ouro or jet_nemotron."""
    insert: dict[str, Any] = field(default_factory=dict)
    """Blocks of fast weights without MLP between those of a pretrained model: {every: 4, rule: G, heads: 8,
    key_dim: 64, value_dim: 128}."""
    lora: dict[str, Any] = field(default_factory=dict)
    """Adapters (peft's LoRA) on a pretrained model, whose own weights but the fast weights are then frozen: {r: 16,
    lora_alpha: 32, target_modules: [qkv_proj, o_proj, gate_up_proj, down_proj], layers_to_transform: [0, 1],
    use_rslora: false}; r is needed. AdamW updates them."""
    qk_l2norm_eps: float | None = 1e-6
    """Epsilon of the L2 norm of fast weights' q and k, x rsqrt(sum x^2 + eps) as in the published blocks; null: x over
    its norm, as in runs of earlier versions."""
    backend: str = "auto"
    """Implementation of the memory rules: auto, or a name the error message lists."""

    def __post_init__(self) -> None:
        letters = (ATTENTION, *MEMORY_MIXERS)
        for letter in self.memory_rules:
            if len(letter) != 1 or not letter.isalpha() or letter in letters:
                raise ValueError(
                    f"model.memory_rules.{letter}: a rule needs one letter of its own, other than "
                    f"{', '.join(letters)}; use X, for example"
                )
        if not self.pattern or set(self.mixers) - {*letters, *self.memory_rules}:
            raise ValueError(
                f"model.pattern={self.pattern!r} must be one or more of the letters "
                f"{', '.join([*letters, *self.memory_rules])}; try AGAG"
            )
        sizes = (
            "d_model",
            "n_heads",
            "kv_heads",
            "head_dim",
            "gdn_heads",
            "key_dim",
            "value_dim",
            "value_heads",
            "d_ff",
        )
        for key in (*sizes, "vocab_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"model.{key}={value} must be at least 1")
        if self.qk_l2norm_eps is not None and not 0 < self.qk_l2norm_eps < math.inf:
            raise ValueError(
                f"model.qk_l2norm_eps={self.qk_l2norm_eps} must be above 0; use 1e-6, or null to divide by the norm"
            )
        for key in ("embedding_std", "residual_scale", "logit_softcap", "max_decay_rate", "output_norm_eps"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"model.{key}={value} must be above 0")
        if not 0 <= self.norm_eps < math.inf:
            raise ValueError(f"model.norm_eps={self.norm_eps} must be from 0; use 1e-6")
        if self.summary_tokens < 0:
            raise ValueError(f"model.summary_tokens={self.summary_tokens} must be 0 (no compaction) or more")
        if self.conv_size < 0:
            raise ValueError(f"model.conv_size={self.conv_size} must be 0 (no convolution) or more; try 4")
        if not self.conv_size and "J" in self.mixers:
            raise ValueError(
                f"model.conv_size=0 leaves the J in model.pattern={self.pattern!r} without its convolution; use G, or "
                f"model.conv_size=4"
            )
        if self.insert and self.pretrained is None:
            raise ValueError(f"model.insert={self.insert} needs model.pretrained: put the blocks into model.pattern")
        if self.lora and self.pretrained is None:
            raise ValueError(f"model.lora={self.lora} needs model.pretrained: weights to be frozen; drop it")
        self._check_attention()
        if self.key_dim is None and self.d_model % (self.gdn_heads or self.n_heads):
            raise ValueError(
                f"model.gdn_heads={self.gdn_heads} does not divide model.d_model={self.d_model}; "
                f"choose a divisor or set model.key_dim"
            )
        if self.value_dim is None and (
            self.value_dim_per_head < 1 or self.value_dim_per_head != self.key_dim_per_head * self.expand_v
        ):
            raise ValueError(
                f"model.expand_v={self.expand_v} times the key dim {self.key_dim_per_head} must be a whole number "
                f">= 1; try 1 or 2, or set model.value_dim"
            )
        if self.value_heads is not None and self.value_heads % self.fast_weight_heads:
            raise ValueError(
                f"model.value_heads={self.value_heads} must be a multiple of the {self.fast_weight_heads} heads of "
                f"model.gdn_heads"
            )

    def _check_attention(self) -> None:
        if self.head_dim is None and (self.d_model % self.n_heads or self.d_model // self.n_heads % 2):
            fits = [n for n in divisors(self.d_model) if self.d_model // n % 2 == 0]
            raise ValueError(
                f"model.n_heads={self.n_heads} does not divide model.d_model={self.d_model} into even head dims "
                f"(RoPE turns pairs); use one of {fits}, or set model.head_dim"
                if fits
                else f"model.d_model={self.d_model} must be even"
            )
        if self.kv_heads is not None and self.n_heads % self.kv_heads:
            raise ValueError(
                f"model.kv_heads={self.kv_heads} must divide model.n_heads={self.n_heads}; use one of "
                f"{divisors(self.n_heads)}"
            )
        rotated = self.attention_head_dim * self.rope_fraction
        if rotated < 2 or rotated % 2:
            raise ValueError(
                f"model.rope_fraction={self.rope_fraction} of the head dim {self.attention_head_dim} must be an even "
                f"number of at least 2 dims (RoPE turns pairs)"
            )
        if not 1 < self.rope_base < math.inf:
            raise ValueError(f"model.rope_base={self.rope_base} must be above 1; use 10000")
        check_scaling("model.rope_scaling", self.rope_scaling)
        blocks, n = self.mixers.count(ATTENTION), len(self.attention_windows)
        if n and (n != blocks or min(self.attention_windows) < 0):
            raise ValueError(
                f"model.attention_windows={self.attention_windows} must hold a number of tokens for each of the "
                f"{blocks} blocks of attention of model.pattern={self.pattern!r}, 0 for all; or leave it empty"
            )

    @property
    def mixers(self) -> str:
        """The pattern without what lower case says of MLPs: a letter of a mixer per block."""
        return "".join(x if x in self.memory_rules else x.upper() for x in self.pattern)

    @property
    def has_mlp(self) -> list[bool]:
        """Whether a block has an MLP, block by block."""
        return [x == mixer for x, mixer in zip(self.pattern, self.mixers, strict=True)]

    @property
    def rules(self) -> list[Rule]:
        """The memory rules that the pattern uses, each once."""
        return list({r.name: r for r in (MEMORY_MIXERS[x].rule for x in self.mixers if x in MEMORY_MIXERS)}.values())

    @property
    def described(self) -> str:
        """For people: pattern and width."""
        return f"{self.pattern} d={self.d_model}"

    @property
    def fast_weight_heads(self) -> int:
        return self.gdn_heads or self.n_heads

    @property
    def key_dim_per_head(self) -> int:
        return self.key_dim or self.d_model // self.fast_weight_heads

    @property
    def value_dim_per_head(self) -> int:
        return self.value_dim or int(self.key_dim_per_head * self.expand_v)

    @property
    def attention_head_dim(self) -> int:
        return self.head_dim or self.d_model // self.n_heads

    @property
    def mlp_width(self) -> int:
        return self.d_ff or -(-8 * self.d_model // (3 * 64)) * 64

    @property
    def n_blocks(self) -> int:
        return len(self.pattern)

    @property
    def attends(self) -> bool:
        """Whether a block has attention."""
        return ATTENTION in self.mixers

    def writers(self, *, cached: bool = False) -> list[int]:
        """Blocks that leave something for later windows, first to last.

        Fast weights do; attention does only where its keys and values are ``cached`` over windows.
        """
        return [i for i, letter in enumerate(self.mixers) if cached or letter != ATTENTION]

    @property
    def attention_only(self) -> str:
        """The pattern with attention in every block: as deep, without memory."""
        return ATTENTION * self.n_blocks

    @property
    def period(self) -> str:
        """The shortest pattern that this one repeats: AG for AGAG."""
        p = self.pattern
        return next(p[:n] for n in range(1, len(p) + 1) if p == (p * 2)[n : n + len(p)])
