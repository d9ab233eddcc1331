"""HybridLM: attention and fast-weight blocks in any order. It reads windows and knows nothing of sleep."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from sleep_lightning.machine.compiled_code import keep_compiled_code_private
from sleep_lightning.model.attention import Attention
from sleep_lightning.model.block import Block
from sleep_lightning.model.config import ATTENTION, MEMORY_MIXERS, ModelConfig
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.flops import Flops
from sleep_lightning.model.memory import Memory
from sleep_lightning.model.norm import RMSNorm
from sleep_lightning.model.rope import RotaryEmbedding
from sleep_lightning.model.window_cache import Slots
from sleep_lightning.model.window_model import WindowModel
from sleep_lightning.ops.dtype import at_least_fp32


class HybridLM(nn.Module, WindowModel):
    """A hybrid language model over one window at a time.

    ``embed`` -> ``blocks`` (once, or N times as ``sleep`` decides) -> ``logits``.

    Args:
        config: sizes and pattern.
        vocab_size: number of tokens of the task; ``config.vocab_size`` comes before it.
        neutral_pad: token that is not attended to, writes nothing and lets nothing decay; None if there is none.
        memory_rules: what makes the mixers of the letters in ``config.memory_rules``, called as ``FastWeights``.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        neutral_pad: int | None = None,
        memory_rules: Mapping[str, Callable[..., FastWeights]] | None = None,
    ) -> None:
        super().__init__()
        self._rules = MEMORY_MIXERS | dict(memory_rules or {})
        self.config, self.neutral_pad = config, neutral_pad
        self.n_blocks, self.summary_tokens = config.n_blocks, config.summary_tokens
        self.vocab_size = vocab_size = config.vocab_size or vocab_size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.layers = nn.ModuleList(self._block(i) for i in range(config.n_blocks))
        self.norm = RMSNorm(config.d_model, config.norm_eps, float(config.norm_offset))
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        if config.summary_tokens:
            self.summary = nn.Parameter(torch.empty(config.summary_tokens, config.d_model))
        self.reset_parameters()
        self.compiled = False

    def compile_passes(self) -> None:
        """torch.compile one pass (``blocks`` and ``write``), whole and with static shapes.

        One graph is compiled per window length, batch size and grad mode, and reused for all windows, passes and N.
        The memory must require grad from the first window on (``zero_memory`` ensures it).
        """
        keep_compiled_code_private()
        self._run = torch.compile(self._run, dynamic=False, fullgraph=True)  # type: ignore[method-assign]
        self.compiled = True

    def _block(self, i: int) -> Block:
        c, letter = self.config, self.config.mixers[i]
        before = c.mixers[:i].count(ATTENTION)
        width = c.attention_windows[before] if c.attention_windows and letter == ATTENTION else 0
        mixer = self._attention(width) if letter == ATTENTION else self._fast_weights(letter)
        d_ff = c.mlp_width if c.has_mlp[i] else None
        scale = 1.0 if c.residual_scale is None else c.residual_scale  # a model alone has no N
        sandwich = c.norm_placement == "sandwich"
        return Block(mixer, c.d_model, d_ff, c.norm_eps, scale, float(c.norm_offset), sandwich)

    def new_block(self, i: int) -> Block:
        """One as the i-th is in a new model, on CPU."""
        with torch.device("cpu"):
            block = self._block(i)
        self._reset_projections(block)
        return block

    def _attention(self, width: int) -> Attention:
        c = self.config
        return Attention(
            c.d_model,
            c.n_heads,
            RotaryEmbedding(int(c.attention_head_dim * c.rope_fraction), c.rope_base, c.rope_scaling),
            kv_heads=c.kv_heads,
            head_dim=c.head_dim,
            bias=c.qkv_bias,
            qk_norm_eps=c.norm_eps if c.qk_norm else None,
            norm_offset=float(c.norm_offset),
            gated=c.attention_gate,
            width=width or None,
        )

    def _fast_weights(self, letter: str) -> FastWeights:
        c = self.config
        grouped = {} if c.value_heads is None else {"value_heads": c.value_heads}
        mixer = self._rules[letter](
            c.d_model,
            c.fast_weight_heads,
            c.key_dim_per_head,
            c.value_dim_per_head,
            c.conv_size,
            c.output_norm_eps or c.norm_eps,
            c.allow_neg_eigval,
            c.backend,
            **grouped,
        )
        mixer.qk_l2norm_eps = c.qk_l2norm_eps
        mixer.slow_down(c.max_decay_rate)
        if c.gate_proj == "separate":
            mixer.split_gates()
        return mixer

    def reset_parameters(self) -> None:
        """Linear weights N(0, 1/fan_in); residual outputs scaled down with depth, or zero; embeddings as configured.

        A Jet block's taps start as their bias, and gates of their own as theirs.
        """
        std = self.config.embedding_std or self.config.d_model**-0.5
        self._reset_projections(self)
        nn.init.normal_(self.embedding.weight, std=std)
        if self.config.summary_tokens:
            nn.init.normal_(self.summary, std=std)

    def _reset_projections(self, root: nn.Module) -> None:
        output = 0.0 if self.config.output_init == "zero" else (2 * self.n_blocks) ** -0.5
        gains = {"out_proj": output, "tap_proj": 0.0}
        for name, module in root.named_modules():
            if isinstance(module, nn.Linear):
                gain = gains.get(name.rpartition(".")[2], 1.0)
                nn.init.normal_(module.weight, std=gain * module.in_features**-0.5)
            if isinstance(module, Attention) and module.in_proj.bias is not None:
                nn.init.zeros_(module.in_proj.bias)

    def restore_buffers(self) -> None:
        """Behind ``to_empty``: the tables of RoPE, and the tie of a head to the embedding."""
        for module in self.modules():
            if isinstance(module, RotaryEmbedding):
                module.reset()
        if self.config.tie_embeddings:
            self.head.weight = self.embedding.weight

    @property
    def memory_layers(self) -> list[FastWeights]:
        """The layers that hold fast weights, first to last."""
        return [layer.mixer for layer in self.stack if isinstance(layer.mixer, FastWeights)]

    @property
    def stack(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.layers))

    def zero_memory(self, batch_size: int, *, carry_conv_state: bool = False, cached_tokens: int = 0) -> Memory:
        """Memory before the first window: all zeros (there is no learned init).

        Args:
            batch_size: sequences.
            carry_conv_state: make room for the short convolutions' inputs.
            cached_tokens: tokens whose keys and values attention keeps across windows (sliding eviction: L - 1).
        """
        states = tuple(m.zero_state(batch_size) for m in self.memory_layers)
        carried = carry_conv_state and self.config.conv_size > 0
        if self.compiled and torch.is_grad_enabled():  # else a separate graph would be compiled for the first window
            states = tuple(state.requires_grad_() for state in states)
        conv = tuple(m.zero_conv(batch_size) for m in self.memory_layers) if carried else ()
        c, weight = self.config, self.norm.weight
        summaries = (weight.new_zeros(batch_size, 0, c.d_model),) if c.summary_tokens else ()
        if not cached_tokens or not c.attends:
            return Memory(states, conv, summaries=summaries)
        size = (batch_size, cached_tokens, 2, c.kv_heads or c.n_heads, c.attention_head_dim)
        kv = tuple(weight.new_zeros(size) for block in self.stack if isinstance(block.mixer, Attention))
        return Memory(states, conv, kv, (weight.new_zeros(batch_size, cached_tokens),))

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Token ids ``[B, T]`` -> hidden states ``[B, T, d_model]``."""
        return self.embedding(tokens_BT)

    def writers(self, *, cached: bool = False) -> Sequence[int]:
        """Blocks that leave something for later windows: fast weights, and attention whose keys are ``cached``."""
        return self.config.writers(cached=cached)

    def loop_norm(self, h: Tensor) -> Tensor:
        """The final norm, between passes."""
        return self.norm(h).to(h.dtype)

    def summary_slots(self) -> Tensor:
        """``[m, d_model]``."""
        return self.summary

    def blocks(
        self,
        h: Tensor,
        memory: Memory,
        pad: Tensor | None = None,
        part: range | None = None,
        *,
        recompute_mlp: bool = False,
        mlps: bool = True,
    ) -> tuple[Tensor, Memory]:
        """One pass over one window: ``h`` ``[B, T, d_model]`` and memory in, both out.

        Args:
            h: hidden states.
            memory: what earlier windows left.
            pad: neutral pads ``[B, T]``, from ``padding``.
            part: consecutive blocks to run; None for all.
            recompute_mlp: recompute the MLPs in the backward instead of keeping their projections: 2 ``mlp_width``
                numbers a token, the largest part of a block's activations.
            mlps: False leaves out the MLPs.
        """
        return self._run(h, memory, pad, range(self.n_blocks) if part is None else part, None, recompute_mlp, mlps)

    def extend(
        self, h: Tensor, memory: Memory, slots: Slots, pad: Tensor | None = None, part: range | None = None
    ) -> tuple[Tensor, Memory]:
        """Some blocks on the next tokens of an open window: ``h`` ``[B, T, d_model]`` and memory in, both out.

        Args:
            h: hidden states of the new tokens.
            memory: from ``open_window``, or the call before.
            slots: of the new tokens; their keys and values are written there.
            pad: neutral pads ``[B, T]``.
            part: consecutive blocks to run; None for all.
        """
        blocks = range(self.n_blocks) if part is None else part
        return HybridLM._run(self, h, memory, pad, blocks, None, False, True, slots)

    def layers_of(self, part: range) -> tuple[range, range]:
        """Of some consecutive blocks: their places in ``Memory.states`` (and ``conv``), and in ``Memory.kv``."""
        attends = [isinstance(block.mixer, Attention) for block in self.stack[: part.stop]]
        before, all_of = sum(attends[: part.start]), sum(attends)
        return range(part.start - before, part.stop - all_of), range(before, all_of)

    def write(
        self,
        h: Tensor,
        memory: Memory,
        pad: Tensor | None = None,
        part: range | None = None,
        *,
        recompute_mlp: bool = False,
        mlps: bool = True,
    ) -> Memory:
        """One pass of which only the memory is wanted: equal to ``blocks(...)[1]``, without the dead tail.

        Everything after the last write (its read-out, its MLP, later blocks) is not run.
        """
        blocks = range(self.n_blocks) if part is None else part
        writers = [i for i in self.writers(cached=bool(memory.kv)) if i in blocks]
        if not writers:
            return memory
        return self._run(h, memory, pad, range(blocks.start, writers[-1] + 1), writers[-1], recompute_mlp, mlps)[1]

    def _run(
        self,
        h: Tensor,
        memory: Memory,
        pad: Tensor | None,
        part: range,
        stop_at: int | None,
        recompute_mlp: bool,
        mlps: bool,
        slots: Slots | None = None,
    ) -> tuple[Tensor, Memory]:
        states, conv, kv = list(memory.states), list(memory.conv), list(memory.kv)
        attention = sum(isinstance(block.mixer, Attention) for block in self.stack[: part.start])
        i = part.start - attention
        for index in part:
            block, read = self.stack[index], index != stop_at
            run = partial(block, pad=pad, recompute_mlp=recompute_mlp, mlps=mlps)
            if isinstance(block.mixer, Attention):
                if kv:
                    out, kv[attention], _ = run(h, kv[attention], present=memory.present[0], read=read)
                else:
                    out = run(h, slots=None if slots is None else slots.of_layer(attention)).h
                attention += 1
            else:
                carried = conv[i] if conv else None
                out, states[i], carried = run(h, states[i], carried, read=read)
                if carried is not None:
                    conv[i] = carried
                i += 1
            if out is None:
                break
            h = out
        return h, Memory(tuple(states), tuple(conv), tuple(kv), memory.present, memory.summaries)

    def logits(self, h: Tensor) -> Tensor:
        """Hidden states ``[B, T, d_model]`` -> fp32 logits ``[B, T, vocab]``."""
        logits, cap = at_least_fp32(self.head(self.norm(h))), self.config.logit_softcap
        return logits if cap is None else cap * (logits / cap).tanh()

    def pass_flops(
        self,
        T: int,
        blocks: range,
        *,
        writes_only: bool = False,
        cached_tokens: int = 0,
        mlps: bool = True,
        carry_conv_state: bool = False,
    ) -> Flops | None:
        """FLOPs of a pass, known from the sizes; None if a memory rule does not say its own."""
        total, options = Flops(), {"mlps": mlps, "carry_conv_state": carry_conv_state}
        for i in blocks:
            flops = self.stack[i].flops(T, cached_tokens, read=not writes_only or i < blocks.stop - 1, **options)
            if flops is None:
                return None
            total += flops
        return total

    def logits_flops(self, T: int) -> int:
        """FLOPs of the output head on T tokens."""
        return 2 * T * self.head.in_features * self.head.out_features
