"""Derivatives of operators with a backward of their own: one by autograd, any by ``torch.func``, in plain torch."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

F = TypeVar("F", bound=Callable[..., Any])

ONCE = (
    "differentiable once by autograd's backward: take further derivatives by torch.func (grad, vjp, jvp, hessian), "
    "which runs the operator in plain torch"
)


def on_cpu(x: torch.Tensor) -> bool:
    """Whether ``x`` is a plain tensor on the CPU: a fake one, or one that wraps others, has no values to read there."""
    return x.device.type == "cpu" and type(x) in (torch.Tensor, torch.nn.Parameter)


def transformed() -> bool:
    """Whether a ``torch.func`` transform (grad, vjp, jvp, vmap, ...) or forward-mode AD is active.

    Operators then run in plain torch, which has all derivatives: kernels and hand-written backwards know none of this.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


# A constant to torch.compile, asked while it traces; a graph is guarded by the transforms that it was traced under.
setattr(transformed, "_dynamo_marked_constant", True)  # noqa: B010


class _NoGraph:
    """The context of a forward that has no backward: keeps nothing."""

    def save_for_backward(self, *_: torch.Tensor | None) -> None: ...

    def mark_non_differentiable(self, *_: torch.Tensor) -> None: ...


def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """``function.apply(*args)``; where no graph is recorded, without what autograd does: a fourth of a small step."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function.apply(*args)
    return function.forward(_NoGraph(), *args)


class _Refuse(torch.autograd.Function):
    """The first ``count`` tensors as they are, as functions of all, with a backward that says why there is none."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: torch.Tensor) -> Any:
        ctx.name = name
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        raise NotImplementedError(f"{ctx.name} is {ONCE}")


def first_derivative_only(name: str) -> Callable[[F], F]:
    """For the backward of an autograd.Function: its gradients refuse to be differentiated, in one sentence.

    torch's ``once_differentiable`` refuses only where the incoming gradient requires one: with ``o.sum()`` it returns
    a gradient without a graph, and a penalty on it vanishes in silence. The forward must save its inputs themselves,
    not copies: the refusal lies on the way to them, or ``torch.autograd.grad`` would not come by.
    """

    def decorate(backward: F) -> F:
        @functools.wraps(backward)
        def run(ctx: Any, *d: Any) -> Any:
            if torch.compiler.is_compiling():  # a compiled graph refuses by itself
                return backward(ctx, *d)
            if transformed() or any(isinstance(x, torch.Tensor) and is_legacy_batchedtensor(x) for x in d):
                raise NotImplementedError(f"{name} has a backward for plain tensors only, and is {ONCE}")
            if not torch.is_grad_enabled():  # no create_graph
                return backward(ctx, *d)
            with torch.no_grad():
                gradients = backward(ctx, *d)
            single = isinstance(gradients, torch.Tensor)
            gradients = [gradients] if single else list(gradients)
            there = [i for i, x in enumerate(gradients) if x is not None]
            inputs = [x for x in (*ctx.saved_tensors, *d) if isinstance(x, torch.Tensor) and x.requires_grad]
            refusing = _Refuse.apply(name, len(there), *(gradients[i] for i in there), *inputs)
            for i, x in zip(there, refusing, strict=True):
                gradients[i] = x
            return gradients[0] if single else tuple(gradients)

        return run  # type: ignore[return-value]

    return decorate
