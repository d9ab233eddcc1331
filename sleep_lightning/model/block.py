"""One block of the hybrid: pre-norm mixer and SwiGLU, each on a residual branch."""

from collections.abc import Callable
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.shared_weights import BlockWeights
from sleep_lightning.ops import DeltaInputs, SharedWeight, add_product, feed_forward, rms_norm, swiglu
from sleep_lightning.ops.cpp.packed_weight import WHOLE

P = ParamSpec("P")
T = TypeVar("T")


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last dim; under autocast in its dtype, as the projection behind it wants."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]``."""
        return rms_norm(x, self.weight, self.eps)


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
    """``h + mixer(norm(h))``, then ``h + mlp(norm(h))``. The hybrid hands a fast-weight mixer its state."""

    def __init__(self, mixer: Attention | FastWeights, d_model: int, d_ff: int, norm_eps: float) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(d_model, norm_eps)
        self.mixer = mixer
        self.mlp_norm = RMSNorm(d_model, norm_eps)
        self.mlp = SwiGLU(d_model, d_ff)
        self.shared: BlockWeights | None = None
        self.recomputes_mlp = False

    def forward(
        self,
        h: Tensor,
        past: Tensor | None = None,
        conv: Tensor | None = None,
        present: Tensor | None = None,
        pad: Tensor | None = None,
        tokens: Tensor | None = None,
        *,
        read: bool = True,
    ) -> BlockOutput:
        """One window.

        Args:
            h: hidden states ``[B, T, E]``.
            past: the fast weights' state, or the keys and values that attention kept (None: it keeps none).
            conv: conv inputs carried by fast weights.
            present: where the cache of attention holds a token.
            pad: neutral tokens ``[B, T]``.
            tokens: ids ``[B, T]`` if h is their embedding: their projections may then be looked up.
            read: False computes only what is kept.
        """
        if isinstance(self.mixer, Attention):
            if past is None:
                return BlockOutput(self.feed_forward(self.attend(h, pad, tokens)), None, conv)
            assert present is not None
            y, past = self.mixer.slide(self.mixer_norm(h), past, present, pad, read)
            return BlockOutput(None if y is None else self.feed_forward(h + y), past, conv)
        assert past is not None
        if self.shared is None or pad is not None or conv is not None:
            y, past, conv = self.mixer(self.mixer_norm(h), past, conv, read=read, pad=pad)
            return BlockOutput(None if y is None else self.feed_forward(h + y), past, conv)
        inputs = self.project(h, tokens, read=read)
        o, past = self.mixer.scan(inputs, past, read=read)
        return BlockOutput(None if o is None else self.feed_forward(self.read_out(h, o, inputs)), past, None)

    def run(self, f: Callable[Concatenate["Block", P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``f(self, ...)``, for who walks a block otherwise: sharded weights are whole in here and in ``forward``."""
        return f(self, *args, **kwargs)

    def share(self, dtype: torch.dtype, embedding_VE: Tensor | None) -> None:
        """From now on run on weights laid out once; ``embedding`` is given to the first block if a table of its
        projections pays."""
        m, mlp, table_VC = self.mixer, self.mlp, None
        if embedding_VE is not None and (isinstance(m, Attention) or m.shares_projection):
            table_VC = F.linear(self.mixer_norm(embedding_VE), m.in_proj.weight)
        self.shared = BlockWeights(
            SharedWeight(m.in_proj.weight, self.mixer_norm.weight, dtype),
            SharedWeight(m.out_proj.weight, None, dtype),
            SharedWeight(mlp.in_proj.weight, self.mlp_norm.weight, dtype),
            SharedWeight(mlp.out_proj.weight, None, dtype),
            table_VC,
        )

    def attend(self, h: Tensor, pad: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """The half of a block of attention that nothing of survives the window: ``h + mixer(norm(h))``."""
        assert isinstance(self.mixer, Attention)
        if self.shared is None or pad is not None or not self.mixer.is_short(h):
            return h + self.mixer(self.mixer_norm(h), pad)
        table_VC = self.shared.table_VC
        if table_VC is None or tokens is None:
            return self.mixer.attend(h, self.shared.mixer_in, self.shared.mixer_out, self.mixer_norm.eps)
        o_BTHD = self.mixer.attention(F.embedding(tokens, table_VC))
        return add_product(h, o_BTHD.flatten(2), self.shared.mixer_out)

    def project(self, h: Tensor, tokens: Tensor | None = None, *, read: bool) -> DeltaInputs:
        """What the rule of a block of fast weights takes of a window that nothing is carried into."""
        assert isinstance(self.mixer, FastWeights)
        if self.shared is None or not self.mixer.shares_projection:
            return self.mixer.project(self.mixer_norm(h), None, read=read)[0]
        table_VC = self.shared.table_VC
        if table_VC is None or tokens is None:
            return self.mixer.project_shared(h, self.shared.mixer_in, self.mixer_norm.eps, read=read)
        return self.mixer.inputs(lambda rows: F.embedding(tokens, table_VC[:, rows or WHOLE]), read=read)

    def read_out(self, h: Tensor, o_BTHV: Tensor, inputs: DeltaInputs) -> Tensor:
        """What a block of fast weights read, added to the hidden states."""
        assert isinstance(self.mixer, FastWeights)
        if self.shared is None:
            return h + self.mixer.read_out(o_BTHV, inputs)
        return add_product(h, self.mixer.normed(o_BTHV, inputs), self.shared.mixer_out)

    def feed_forward(self, h: Tensor) -> Tensor:
        """The other half: ``h + mlp(norm(h))``."""
        if self.shared is not None:
            into, out_of = self.shared.mlp_in, self.shared.mlp_out
            return feed_forward(h, into, out_of, self.mlp_norm.eps, recompute=self.recomputes_mlp)
        if self.recomputes_mlp and torch.is_grad_enabled():
            y: Tensor = checkpoint(self._mlp, h, use_reentrant=False, preserve_rng_state=False)
            return h + y
        return h + self._mlp(h)

    def _mlp(self, h: Tensor) -> Tensor:
        return self.mlp(self.mlp_norm(h))
