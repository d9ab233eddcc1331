"""The gated delta rule in C++ (``ops/cpp``), forward and backward, as custom operators of torch."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from sleep_lightning.ops.cpp import build
from sleep_lightning.ops.cpp.binding import DTYPES
from sleep_lightning.ops.dispatch import why_not_transformed
from sleep_lightning.ops.transforms import ONCE

FORWARD, BACKWARD = "sleep_lightning::gated_delta_rule", "sleep_lightning::gated_delta_rule_backward"
ROWS = 8  # a chunk is a multiple of the kernel's rows
MAX_CHUNK = 32
SEGMENT_FLOATS = 1 << 17  # states that the backward recomputes at a time: they stay in the L2 cache
STATES = ("initial_state", "final_state", "states", "d_final_state", "d_initial_state")  # [B, H, ..., K, V], float32


class _Tensor(ctypes.Structure):
    """``Tensor`` of delta_rule_head.h: strides in elements over batch, token and head."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("stride_b", ctypes.c_int64),
        ("stride_t", ctypes.c_int64),
        ("stride_h", ctypes.c_int64),
        ("bf16", ctypes.c_int64),
    )


class _Args(ctypes.Structure):
    """``Args`` of delta_rule_head.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("B", "T", "H", "K", "V", "chunk", "segment", "threads")),
        ("scale", ctypes.c_double),
        *((name, _Tensor) for name in ("q", "k", "v", "g", "beta", "o", "errors")),
        *((name, ctypes.c_void_p) for name in ("initial_state", "final_state", "states")),
        *((name, _Tensor) for name in ("d_o", "d_q", "d_k", "d_v", "d_g", "d_beta")),
        *((name, ctypes.c_void_p) for name in ("d_final_state", "d_initial_state")),
    )


def plan(T: int, K: int, V: int) -> tuple[int, int, int]:
    """Tokens of a chunk, chunks of a segment, and how many states are saved: one before each segment but the first."""
    tokens = _ceil_div(T, _ceil_div(T, MAX_CHUNK))
    chunk = _ceil_div(tokens, ROWS) * ROWS
    segment = max(1, SEGMENT_FLOATS // (K * V))
    return chunk, segment, _ceil_div(_ceil_div(T, chunk), segment) - 1


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _call(function: str, shape: torch.Size, V: int, scale: float, **tensors: Tensor | None) -> None:
    """Calls a function of the library with ``tensors`` named as in ``Args``; an empty one is absent."""
    B, T, H, K = shape
    if B * H == 0:
        return
    chunk, segment, _ = plan(T, K, V)
    args = _Args(B, T, H, K, V, chunk, segment, torch.get_num_threads(), scale)
    kept = []  # alive until the call returns
    for name, x in tensors.items():
        if x is None or x.numel() == 0:
            continue
        if x.dtype not in (DTYPES[:1] if name in STATES else DTYPES):
            raise TypeError(f"{name} is {x.dtype}")
        if name in STATES:
            x = x.contiguous()
            setattr(args, name, x.data_ptr())
        else:
            x = x if x.dim() == 3 or x.stride(-1) == 1 else x.contiguous()
            setattr(args, name, _Tensor(x.data_ptr(), *x.stride()[:3], x.dtype == torch.bfloat16))
        kept.append(x)
    getattr(build.load(), function)(ctypes.byref(args))


def _forward(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``o`` (empty without q), final state, and with ``save`` what the backward needs: errors ``[B,T,H,V]``, states."""
    outputs = _forward_outputs(q, k, v, g, beta, initial_state, scale, save)
    tensors = {"q": q, "k": k, "v": v, "g": g, "beta": beta, "initial_state": initial_state}
    tensors |= dict(zip(("o", "final_state", "errors", "states"), outputs, strict=True))
    _call("gated_delta_rule_forward", k.shape, v.shape[-1], scale, **tensors)
    return outputs


def _forward_outputs(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, T, H, K = k.shape
    V = v.shape[-1]
    float32 = torch.float32
    return (
        v.new_empty(0 if q is None else v.shape),
        k.new_empty(B, H, K, V, dtype=float32),
        k.new_empty((B, T, H, V) if save else 0, dtype=float32),
        k.new_empty((B, H, plan(T, K, V)[2], K, V) if save else 0, dtype=float32),
    )


def _backward(
    d_o: Tensor | None,
    d_final: Tensor | None,
    q: Tensor | None,
    k: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    errors: Tensor,
    states: Tensor,
    v_dtype: torch.dtype,
    scale: float,
    needs_d_initial: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, g, beta and the initial state; empty where there is none."""
    outputs = _backward_outputs(
        d_o, d_final, q, k, g, beta, initial_state, errors, states, v_dtype, scale, needs_d_initial
    )
    tensors = {"q": q, "k": k, "g": g, "beta": beta, "initial_state": initial_state}
    tensors |= {"errors": errors, "states": states, "d_o": d_o, "d_final_state": d_final}
    tensors |= dict(zip(("d_q", "d_k", "d_v", "d_g", "d_beta", "d_initial_state"), outputs, strict=True))
    _call("gated_delta_rule_backward", k.shape, errors.shape[-1], scale, **tensors)
    return outputs


def _backward_outputs(
    d_o: Tensor | None,
    d_final: Tensor | None,
    q: Tensor | None,
    k: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    errors: Tensor,
    states: Tensor,
    v_dtype: torch.dtype,
    scale: float,
    needs_d_initial: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, H, K = k.shape
    return (
        k.new_empty(0) if q is None or d_o is None else q.new_empty(q.shape),
        k.new_empty(k.shape),
        k.new_empty(errors.shape, dtype=v_dtype),
        g.new_empty(g.shape),
        beta.new_empty(beta.shape),
        k.new_empty((B, H, K, errors.shape[-1]) if needs_d_initial else 0, dtype=torch.float32),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, g, beta, initial_state, scale, save = inputs
    if not save:
        raise RuntimeError("sleep_lightning::gated_delta_rule was called with save=False and needs a gradient")
    errors, states = output[2:]
    ctx.mark_non_differentiable(errors, states)
    ctx.save_for_backward(q, k, g, beta, initial_state, errors, states)
    ctx.v_dtype, ctx.scale = v.dtype, scale
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, d_o: Tensor | None, d_final: Tensor | None, _errors: Tensor | None, _states: Tensor | None
) -> tuple[Tensor | None, ...]:
    q, k, g, beta, initial_state, errors, states = ctx.saved_tensors
    d_o = None if q is None else d_o
    needs_d_initial = initial_state is not None and ctx.needs_input_grad[5]
    d_q, d_k, d_v, d_g, d_beta, d_initial = torch.ops.sleep_lightning.gated_delta_rule_backward(
        d_o, d_final, q, k, g, beta, initial_state, errors, states, ctx.v_dtype, ctx.scale, needs_d_initial
    )
    d_q, d_initial = (None if d_o is None else d_q), (d_initial if needs_d_initial else None)
    return d_q, d_k, d_v, d_g, d_beta, d_initial, None, None


def _differentiate_twice(ctx: Any, *gradients: Tensor | None) -> None:
    raise NotImplementedError(f"the C++ gated delta rule is {ONCE}")


# Not torch.library.custom_op: its first call imports torch._dynamo (seconds), every call takes tens of microseconds.
for _name, _run, _fake in ((FORWARD, _forward, _forward_outputs), (BACKWARD, _backward, _backward_outputs)):
    torch.library.define(_name, torch.library.infer_schema(_run, mutates_args=()))
    torch.library.impl(_name, "CPU", _run)
    torch.library.register_fake(_name, _fake)
torch.library.register_autograd(FORWARD, _differentiate, setup_context=_setup_context)
torch.library.register_autograd(BACKWARD, _differentiate_twice)


def why_not_native(k: Tensor) -> str | None:
    """Why the C++ kernel cannot take keys ``k`` ``[B, T, H, K]``; None if it can. Builds it at the first call."""
    if reason := why_not_transformed(k):
        return reason
    if k.device.type != "cpu":
        return f"the C++ kernel runs on cpu, the tensors are on {k.device.type}"
    if k.dtype not in DTYPES:
        return f"the C++ kernel takes float32 and bfloat16, not {k.dtype}"
    return build.why_not()


def native_gated_delta_rule(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor | None, Tensor]:
    """Same contract as ``reference_gated_delta_rule``, on CPU, in float32; differentiable once in every tensor."""
    inputs = [x if x is None or x.dtype in DTYPES else x.float() for x in (q, k, v, g, beta)]
    state = None if initial_state is None else initial_state.float()
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*inputs, state))
    o, final, _, _ = torch.ops.sleep_lightning.gated_delta_rule(*inputs, state, scale, save)
    return None if q is None else o.to(v.dtype), final
