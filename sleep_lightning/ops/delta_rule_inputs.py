"""From a fused projection to what the gated delta rule takes: short convolution, L2 norm of keys and queries, gates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.ops.cpp.binding import Kernel, usable
from sleep_lightning.ops.dtype import at_least_fp32
from sleep_lightning.ops.short_conv import short_conv
from sleep_lightning.ops.transforms import apply, first_derivative_only

MAX_TAPS = 4  # of the C++ kernel
UNITS = 16  # groups of batch rows whose contributions to the weights' gradients are summed first

_delta_inputs = Kernel(
    "B T heads key_dim queries values taps threads bf16 x_stride sequences",
    "beta_scale l2norm_eps",
    "x weight A_log dt_bias q k v beta g dq dk dv dbeta dg dx dweight dA_log ddt_bias",
)


class DeltaInputs(NamedTuple):
    """q, k ``[B, T, H, K]``, v ``[B, T, H, V]``, g (fp32) and beta ``[B, T, H]``, rest ``[B, T, *]``; q and rest may be
    None."""

    q: Tensor | None
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor
    rest: Tensor | None

    def map(self, f: Callable[[Tensor], Tensor]) -> "DeltaInputs":
        """Apply ``f`` to every tensor that is there."""
        return DeltaInputs(*(None if x is None else f(x) for x in self))  # type: ignore[arg-type]


class Layout(NamedTuple):
    """Heads, their key and value dims, whether the projection starts with queries, the largest write strength, the
    epsilon of ``l2norm``, and the heads of values (grouped values: a multiple of ``heads``; None: as many)."""

    heads: int
    key_dim: int
    value_dim: int
    reads: bool
    beta_scale: int
    qk_l2norm_eps: float | None = 1e-6
    value_heads: int | None = None

    @property
    def states(self) -> int:
        """Heads of the state: those of the values."""
        return self.value_heads or self.heads

    @property
    def splits(self) -> tuple[int, int, int]:
        """Channels of q, k and v: what is convolved."""
        keys = self.heads * self.key_dim
        return (keys if self.reads else 0, keys, self.states * self.value_dim)

    @property
    def kernel_eps(self) -> float:
        """The kernel's number for ``qk_l2norm_eps``."""
        return -1.0 if self.qk_l2norm_eps is None else self.qk_l2norm_eps


def delta_inputs(
    x_BTC: Tensor, weight_JC: Tensor | None, A_log: Tensor | None, dt_bias: Tensor | None, layout: Layout
) -> DeltaInputs:
    """``q, k = l2norm(SiLU(conv(.)))``, ``v = SiLU(conv(.))``, ``g = -exp(A_log) softplus(a + dt_bias)``,
    ``beta = scale sigmoid(b)`` (Gated DeltaNet's equations; the convolution starts from zeros).

    Args:
        x_BTC: channels of q, k, v, then a and b (one per head of values), then a rest that is passed through.
        weight_JC: taps of the convolution on q, k, v, oldest first; None for none.
        A_log, dt_bias: ``[H]``; None for no decay: there is no a, and g is 0.
        layout: which channels are what.
    """
    taps = 0 if weight_JC is None else len(weight_JC)
    grouped = layout.states != layout.heads
    if taps <= MAX_TAPS and not grouped and (A_log is None or A_log.dtype == torch.float32) and usable(x_BTC):
        weight_JC = None if weight_JC is None else weight_JC.contiguous()
        q, k, v, g, beta, rest = apply(_DeltaInputs, x_BTC.contiguous(), weight_JC, A_log, dt_bias, layout)
        return DeltaInputs(q, k, v, g, beta, rest)
    qkv, gates = x_BTC.tensor_split((sum(layout.splits),), -1)
    convolved = F.silu(qkv) if weight_JC is None else short_conv(qkv, weight_JC)
    return _from_convolved(convolved, gates, A_log, dt_bias, layout)


def delta_inputs_after(
    carried_BJC: Tensor,
    x_BTC: Tensor,
    weight_JC: Tensor,
    A_log: Tensor | None,
    dt_bias: Tensor | None,
    layout: Layout,
) -> tuple[DeltaInputs, Tensor]:
    """As ``delta_inputs``, after the convolution's inputs ``[B, taps - 1, q k v]`` of the tokens before.

    Returns:
        The inputs of the rule, and the next window's ``carried_BJC``.
    """
    qkv, gates = x_BTC.tensor_split((sum(layout.splits),), -1)
    window = torch.cat((carried_BJC.to(qkv.dtype), qkv), 1)
    convolved = short_conv(window, weight_JC)[:, carried_BJC.shape[1] :]
    return _from_convolved(convolved, gates, A_log, dt_bias, layout), window[:, qkv.shape[1] :]


def _from_convolved(
    convolved_BTC: Tensor, gates_BTC: Tensor, A_log: Tensor | None, dt_bias: Tensor | None, layout: Layout
) -> DeltaInputs:
    """The definition behind the convolution: ``gates_BTC`` holds a (if there is decay), b and the rest."""
    B, T, _ = convolved_BTC.shape
    H, (q, k, v) = layout.states, convolved_BTC.split(layout.splits, -1)
    q, k = (x.view(B, T, layout.heads, x.shape[-1] // layout.heads) for x in (q, k))
    v = v.view(B, T, H, v.shape[-1] // H)
    if H != layout.heads:
        q, k = (x.repeat_interleave(H // layout.heads, 2) for x in (q, k))
    decays = 0 if A_log is None else H
    a, b, rest = gates_BTC.split((decays, H, gates_BTC.shape[-1] - decays - H), -1)
    if A_log is None or dt_bias is None:
        g = torch.zeros_like(b, dtype=torch.promote_types(b.dtype, torch.float32))
    else:
        g = -A_log.exp() * F.softplus(at_least_fp32(a) + dt_bias)
    return DeltaInputs(
        q=l2norm(q, layout.qk_l2norm_eps) if layout.reads else None,
        k=l2norm(k, layout.qk_l2norm_eps),
        v=v,
        g=g,
        beta=b.sigmoid() * layout.beta_scale,
        rest=rest if rest.shape[-1] else None,
    )


def l2norm(x: Tensor, eps: float | None) -> Tensor:
    """``x rsqrt(sum(x^2) + eps)`` over the last dim, in fp32, as in fla, Qwen3-Next and Jet-Nemotron.

    None: ``x`` over its norm, or over 1e-12 if that is more.
    """
    wide = at_least_fp32(x)
    if eps is None:
        return F.normalize(wide, dim=-1).to(x.dtype)
    return (wide * torch.rsqrt((wide * wide).sum(-1, keepdim=True) + eps)).to(x.dtype)


def _kernel_forward(
    x: Tensor, weight: Tensor | None, A_log: Tensor | None, dt_bias: Tensor | None, layout: Layout
) -> DeltaInputs:
    """The kernel: ``delta_inputs``, all contiguous; rest is a view of x."""
    B, T, _ = x.shape
    queries, keys, values = layout.splits
    q, k = (x.new_empty(B, T, layout.heads, layout.key_dim) if n else None for n in (queries, keys))
    v, beta = x.new_empty(B, T, layout.heads, layout.value_dim), x.new_empty(B, T, layout.heads)
    g = (torch.zeros_like if A_log is None else torch.empty_like)(beta, dtype=torch.float32)
    given = {"x": x, "weight": weight, "A_log": A_log, "dt_bias": dt_bias, "l2norm_eps": layout.kernel_eps}
    _delta_inputs("delta_inputs_forward", **_sizes(x, weight, layout), **given, q=q, k=k, v=v, beta=beta, g=g)
    assert k is not None
    first = queries + keys + values + (1 if A_log is None else 2) * layout.heads
    return DeltaInputs(q, k, v, g, beta, x[..., first:] if x.shape[-1] > first else None)


def _kernel_backward(
    x: Tensor,
    weight: Tensor | None,
    A_log: Tensor | None,
    dt_bias: Tensor | None,
    layout: Layout,
    d: DeltaInputs,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The kernel: the gradients of x, weight, A_log and dt_bias."""
    sizes, dx = _sizes(x, weight, layout), torch.empty_like(x)
    units = -(-sizes["B"] // sizes["sequences"])
    dweight = None if weight is None else weight.new_empty(units, *weight.shape)
    dA_log, ddt_bias = (None if p is None else p.new_empty(units, len(p)) for p in (A_log, dt_bias))
    given = {"x": x, "weight": weight, "A_log": A_log, "dt_bias": dt_bias, "l2norm_eps": layout.kernel_eps}
    kept = d._replace(rest=None).map(Tensor.contiguous)
    given |= {"dq": kept.q, "dk": kept.k, "dv": kept.v, "dg": kept.g, "dbeta": kept.beta}
    sums = {"dweight": dweight, "dA_log": dA_log, "ddt_bias": ddt_bias}
    _delta_inputs("delta_inputs_backward", **sizes, **given, dx=dx, **sums)
    if d.rest is not None:
        dx[..., dx.shape[-1] - d.rest.shape[-1] :] = d.rest
    dweight, dA_log, ddt_bias = (None if p is None else p.sum(0) for p in (dweight, dA_log, ddt_bias))
    return dx, dweight, dA_log, ddt_bias


class _DeltaInputs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        A_log: Tensor | None,
        dt_bias: Tensor | None,
        layout: Layout,
    ) -> tuple[Tensor | None, ...]:
        outputs = _kernel_forward(x, weight, A_log, dt_bias, layout)
        ctx.save_for_backward(x, weight, A_log, dt_bias)
        if A_log is None:
            ctx.mark_non_differentiable(outputs.g)
        ctx.layout = layout
        return outputs

    @staticmethod
    @first_derivative_only("the C++ kernel of the delta rule's inputs")
    def backward(ctx: Any, *d: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, A_log, dt_bias = ctx.saved_tensors
        d_inputs = DeltaInputs(*d)  # type: ignore[arg-type]
        return *_kernel_backward(x, weight, A_log, dt_bias, ctx.layout, d_inputs), None


def _sizes(x: Tensor, weight: Tensor | None, layout: Layout) -> dict[str, int]:
    B, T, C = x.shape
    queries, _, values = layout.splits
    return {
        "B": B,
        "T": T,
        "heads": layout.heads,
        "key_dim": layout.key_dim,
        "queries": queries,
        "values": values,
        "taps": 0 if weight is None else len(weight),
        "bf16": x.dtype == torch.bfloat16,
        "x_stride": C,
        "sequences": max(1, -(-B // UNITS)),
        "beta_scale": layout.beta_scale,
    }
