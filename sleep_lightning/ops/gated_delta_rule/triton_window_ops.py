"""The window kernels as custom operators: allocation, launch, fake kernels for torch.compile, and the autograd rule."""

from typing import Any, Literal

import torch
from torch import Tensor

from sleep_lightning.ops.transforms import ONCE

CHUNK = 16
"""Tokens a program takes at a time: the fewest tl.dot allows, and the most whose tiles fit in registers."""


def precision(dtype: torch.dtype) -> Literal["ieee", "tf32"]:
    """How the kernels multiply tensors of ``dtype``.

    Half precision in TF32, which keeps more digits than it has; fp32 exactly, unless torch may multiply it in TF32.
    """
    return "tf32" if dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32 else "ieee"


def launch_options(K: int, V: int, dtype: torch.dtype) -> dict[str, Any]:
    """Precision, tile sizes and compiler options of both kernels for heads of K x V; test_triton_compile gates what
    they cost.

    Few warps, though more of them would spill less: on an H100, 4 that spill beat 8 that do not by 1.4 (ieee, K = 64).
    """
    multiply = precision(dtype)
    most = 64 if K <= 64 else 32
    BK = _padded(K, most)
    return {
        "K": K,
        "V": V,
        "PRECISION": multiply,
        "C": CHUNK,
        "BK": BK,
        "SLABS": -(-K // BK),  # older Tritons make a tensor of a division inside the kernel
        "BV": _padded(V, most),
        "num_warps": 2 if multiply == "tf32" and max(K, V) > 64 else 4,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def _padded(size: int, most: int) -> int:
    """The power of two, from the 16 that tl.dot needs to ``most``, whose tiles cover ``size`` best."""
    return max(16, min(most, 1 << (size - 1).bit_length()))


@torch.library.custom_op("sleep_lightning::window_gated_delta_rule", mutates_args=())
def window_gated_delta_rule(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """o ``[B, T, H, V]`` (empty without q) and the final state ``[B, H, K, V]``; and what the backward needs, the
    state before each chunk ``[B, H, chunks, K, V]`` and the errors E ``[B, T, H, V]``. All but o are fp32.
    """
    from sleep_lightning.ops.gated_delta_rule.triton_window_kernels import window_forward

    outputs = _forward_outputs(q, k, v, g, beta, state, scale)
    T, H, K, V = *k.shape[1:], v.shape[-1]
    strides = [x.stride() for x in (k if q is None else q, k, v, g, beta)]
    options = launch_options(K, V, k.dtype)
    with torch.cuda.device_of(k):
        window_forward[k.shape[0] * H, -(-V // options["BV"])](
            k if q is None else q,
            k,
            v,
            g,
            beta,
            state.contiguous(),
            *outputs,
            scale,
            *strides,
            T,
            H,
            READ=q is not None,
            **options,
        )
    return outputs


@window_gated_delta_rule.register_fake
def _forward_outputs(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, T, H, K = k.shape
    V = v.shape[-1]
    return (
        v.new_empty((0,) if q is None else (B, T, H, V)),
        state.new_empty(B, H, K, V),
        state.new_empty(B, H, -(-T // CHUNK), K, V),
        state.new_empty(B, T, H, V),
    )


@torch.library.custom_op("sleep_lightning::window_gated_delta_rule_backward", mutates_args=())
def window_gated_delta_rule_backward(
    q: Tensor | None,
    k: Tensor,
    g: Tensor,
    beta: Tensor,
    starts: Tensor,
    errors: Tensor,
    d_o: Tensor | None,
    d_final: Tensor | None,
    v_dtype: torch.dtype,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q (empty without q or d_o), k, v, g, beta and the initial state, from those of o and the final."""
    from sleep_lightning.ops.gated_delta_rule.triton_window_kernels import window_backward

    dq, dk, dv, dg, d_beta, d_state = outputs = _backward_outputs(
        q, k, g, beta, starts, errors, d_o, d_final, v_dtype, scale
    )
    B, T, H, K = k.shape
    V = errors.shape[-1]
    d_final = torch.zeros_like(d_state) if d_final is None else d_final.contiguous()
    read = q is not None and d_o is not None
    q, d_o = (q, d_o) if q is not None and d_o is not None else (k, errors)
    strides = [x.stride() for x in (q, k, g, beta, d_o)]
    options = launch_options(K, V, k.dtype)
    slabs = -(-V // options["BV"])
    # Slabs of V share q, k and the gates: each writes its part of their gradients, summed below.
    shared = [x if slabs == 1 else x.new_empty(slabs, *x.shape, dtype=torch.float32) for x in (dq, dk, dg, d_beta)]
    with torch.cuda.device_of(k):
        window_backward[B * H, slabs](
            q,
            k,
            g,
            beta,
            starts,
            errors,
            d_o,
            d_final,
            *shared,
            dv,
            d_state,
            scale,
            *strides,
            T,
            H,
            READ=read,
            **options,
        )
    if slabs > 1:
        for x, parts in zip((dq, dk, dg, d_beta), shared, strict=True):
            x.copy_(parts.sum(0))
    return outputs


@window_gated_delta_rule_backward.register_fake
def _backward_outputs(
    q: Tensor | None,
    k: Tensor,
    g: Tensor,
    beta: Tensor,
    starts: Tensor,
    errors: Tensor,
    d_o: Tensor | None,
    d_final: Tensor | None,
    v_dtype: torch.dtype,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, T, H, K = k.shape
    V = errors.shape[-1]
    return (
        k.new_empty(0) if q is None or d_o is None else q.new_empty(q.shape),
        k.new_empty(k.shape),
        errors.new_empty(B, T, H, V, dtype=v_dtype),
        g.new_empty(g.shape),
        beta.new_empty(beta.shape),
        starts.new_empty(B, H, K, V),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, g, beta, _, scale = inputs
    ctx.save_for_backward(q, k, g, beta, *output[2:])
    ctx.set_materialize_grads(False)
    ctx.v_dtype, ctx.scale = v.dtype, scale


def _backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    q, *saved = ctx.saved_tensors
    if q is None:
        d_o = None
    if d_o is None and d_final is None:
        return (None,) * 7
    dq, *gradients = window_gated_delta_rule_backward(q, *saved, d_o, d_final, ctx.v_dtype, ctx.scale)
    return (None if d_o is None else dq, *gradients, None)


def _backward_twice(ctx: Any, *_: Tensor | None) -> None:
    raise NotImplementedError(f"the Triton gated delta rule is {ONCE}")


window_gated_delta_rule.register_autograd(_backward, setup_context=_setup_context)
window_gated_delta_rule_backward.register_autograd(_backward_twice)
