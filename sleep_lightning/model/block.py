"""One block of the hybrid: mixer and SwiGLU behind norms, each on a residual branch."""

from collections.abc import Callable
from functools import partial
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.flops import Flops, products, projection
from sleep_lightning.model.norm import RMSNorm
from sleep_lightning.model.window_cache import LayerSlots
from sleep_lightning.ops import DeltaInputs, swiglu

P = ParamSpec("P")
T = TypeVar("T")


class SwiGLU(nn.Module):
    """``W_down (SiLU(W_gate x) * W_up x)``, ``[..., d_model] -> [..., d_model]``."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.in_splits = (d_ff, d_ff)
        self.out_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(swiglu(self.in_proj(x)))


class BlockOutput(NamedTuple):
    """Hidden states [B, T, E] (None when only the memory was asked for), the new state or cache, conv inputs."""

    h: Tensor | None
    past: Tensor | None
    conv: Tensor | None


class Block(nn.Module):
    """``h + s mixer(norm(h))``, then ``h + s mlp(norm(h))``. The hybrid passes a fast-weight mixer its state.

    Args:
        mixer: attention or fast weights.
        d_model: width of the residual stream.
        d_ff: width of the MLP; None for a block without.
        norm_eps: epsilon of its norms.
        residual_scale: s.
        norm_offset: of its norms.
        sandwich: mixer and MLP have a norm behind them too, ``h + s norm(mixer(norm(h)))``; not in a block without an
            MLP: behind an output of zeros a norm has a slope of 1 / sqrt(eps).
    """

    def __init__(
        self,
        mixer: Attention | FastWeights,
        d_model: int,
        d_ff: int | None,
        norm_eps: float,
        residual_scale: float = 1.0,
        norm_offset: float = 0.0,
        sandwich: bool = False,
    ) -> None:
        super().__init__()
        norm = partial(RMSNorm, d_model, norm_eps, norm_offset)
        self.residual_scale = residual_scale
        self.mixer_norm, self.mixer = norm(), mixer
        self.mlp_norm = None if d_ff is None else norm()
        self.mlp = None if d_ff is None else SwiGLU(d_model, d_ff)
        sandwich = sandwich and d_ff is not None
        self.mixer_out_norm = norm() if sandwich else None
        self.mlp_out_norm = norm() if sandwich else None

    def forward(
        self,
        h: Tensor,
        past: Tensor | None = None,
        conv: Tensor | None = None,
        present: Tensor | None = None,
        pad: Tensor | None = None,
        *,
        slots: LayerSlots | None = None,
        read: bool = True,
        recompute_mlp: bool = False,
        mlps: bool = True,
    ) -> BlockOutput:
        """One window.

        Args:
            h: hidden states ``[B, T, E]``.
            past: the fast weights' state, or the keys and values that attention kept (None: it keeps none).
            conv: conv inputs carried by fast weights.
            present: where the cache of attention holds a token.
            pad: neutral tokens ``[B, T]``.
            slots: of attention in a window that is read as its tokens come.
            read: False computes only what is kept for later windows.
            recompute_mlp: recompute the MLP in the backward instead of keeping its projections.
            mlps: False leaves the MLP out.
        """
        if not isinstance(self.mixer, Attention):
            assert past is not None
            y, past, conv = self.mixer(self.mixer_norm(h), past, conv, read=read, pad=pad)
        elif slots is not None:
            y = self.mixer.extend(self.mixer_norm(h), slots)
        elif past is None:
            y = self.mixer(self.mixer_norm(h), pad)
        else:
            assert present is not None
            y, past = self.mixer.slide(self.mixer_norm(h), past, present, pad, read)
        if y is None:
            return BlockOutput(None, past, conv)
        h = self._add_mixed(h, y)
        return BlockOutput(self.feed_forward(h, recompute=recompute_mlp) if mlps else h, past, conv)

    def run(self, f: Callable[Concatenate["Block", P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``f(self, ...)``, for other ways to run a block: sharded weights are gathered in here and in ``forward``."""
        return f(self, *args, **kwargs)

    def attend(self, h: Tensor) -> Tensor:
        """``h + mixer(norm(h))`` of a block of attention that sees its window only."""
        assert isinstance(self.mixer, Attention)
        return self._add_mixed(h, self.mixer(self.mixer_norm(h)))

    def project(self, h: Tensor, *, read: bool) -> DeltaInputs:
        """The rule's inputs of a block of fast weights, in a window that no convolution state is carried into."""
        assert isinstance(self.mixer, FastWeights)
        return self.mixer.project(self.mixer_norm(h), None, read=read)[0]

    def read_out(self, h: Tensor, o_BTHV: Tensor, inputs: DeltaInputs) -> Tensor:
        """What a block of fast weights read, added to the hidden states."""
        assert isinstance(self.mixer, FastWeights)
        return self._add_mixed(h, self.mixer.read_out(o_BTHV, inputs))

    def feed_forward(self, h: Tensor, *, recompute: bool = False) -> Tensor:
        """``h + mlp(norm(h))``; with ``recompute`` its activations are recomputed in the backward."""
        if self.mlp is None:
            return h
        if recompute and torch.is_grad_enabled():
            y: Tensor = checkpoint(self._mlp, h, use_reentrant=False, preserve_rng_state=False)
            return self._add(h, y)
        return self._add(h, self._mlp(h))

    def _add_mixed(self, h: Tensor, y: Tensor) -> Tensor:
        return self._add(h, y if self.mixer_out_norm is None else self.mixer_out_norm(y))

    def _add(self, h: Tensor, y: Tensor) -> Tensor:
        return torch.add(h, y, alpha=self.residual_scale)

    def _mlp(self, h: Tensor) -> Tensor:
        assert self.mlp is not None and self.mlp_norm is not None
        y: Tensor = self.mlp(self.mlp_norm(h))
        return y if self.mlp_out_norm is None else self.mlp_out_norm(y)

    def flops(
        self, T: int, cached_tokens: int = 0, *, read: bool = True, mlps: bool = True, carry_conv_state: bool = False
    ) -> Flops | None:
        """FLOPs of T tokens of one sequence, without ``read`` of the write alone; None if the mixer does not say."""
        if isinstance(self.mixer, Attention):
            mixer: Flops | None = self.mixer.flops(T, cached_tokens, read=read)
        else:
            mixer = self.mixer.flops(T, read=read)
            if mixer is not None and carry_conv_state and not read:
                mixer += products(projections=2 * T * self.mixer.carried_weights)
        if mixer is None or self.mlp is None or not (read and mlps):
            return mixer
        inputs = projection("mlp", T, self.mlp.in_proj)
        recomputed = Flops(mlp_recompute=inputs.forward.total())  # the last product is not needed
        return mixer + inputs + projection("mlp", T, self.mlp.out_proj) + recomputed
