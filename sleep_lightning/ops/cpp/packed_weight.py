"""A matrix that many products of one training step share.

A step multiplies by the same few matrices once for every window and pass. Laid out once, with the weight of the norm
in front folded in, they cost less; and their gradients are summed in place, product by product, instead of by
autograd, which would make a matrix for every product and add it up afterwards.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

WHOLE = slice(None)


class GradientSum:
    """The gradient of a shared weight ``[N, K]``, fp32, so far; None while there is none."""

    def __init__(self, shape: torch.Size, *, wanted: bool) -> None:
        self._shape, self._wanted = shape, wanted
        self._sum: Tensor | None = None

    def add(self, dy_RN: Tensor, x_RK: Tensor, rows: slice = WHOLE) -> None:
        """Add ``dy^T x`` to these rows of it."""
        if not self._wanted:
            return
        if self._sum is None:
            self._sum = torch.zeros(self._shape, dtype=torch.float32)
        part = self._sum[rows]
        if x_RK.dtype == part.dtype:
            part.addmm_(dy_RN.t(), x_RK)
        else:
            part.add_(dy_RN.t() @ x_RK)

    def take(self) -> Tensor | None:
        """The sum; a new one begins."""
        taken, self._sum = self._sum, None
        return taken


class SharedWeight:
    """``[N, K]``, used by products inside one forward and its backward.

    Args:
        weight: fp32 parameter.
        norm_weight: weight ``[K]`` of the RMSNorm in front, folded in; None for none.
        dtype: of the products.
    """

    def __init__(self, weight: Tensor, norm_weight: Tensor | None, dtype: torch.dtype) -> None:
        folded = weight.detach() if norm_weight is None else weight.detach() * norm_weight.detach()
        self.weight_NK = folded.to(dtype)
        self._parameter_at = weight.data_ptr()
        self.weight_KN = self.weight_NK.t().contiguous()
        trained = weight.requires_grad or (norm_weight is not None and norm_weight.requires_grad)
        self.gradient = GradientSum(weight.shape, wanted=trained)
        self.anchor: Tensor = _Anchor.apply(weight, norm_weight, self.gradient)
        """Empty. Who uses the weight takes this as an input that requires grad: its backward comes after theirs."""

    @property
    def nbytes(self) -> int:
        """Bytes above those of the parameter: its layouts, and its gradient until the backward is over."""
        folded = 0 if self.weight_NK.data_ptr() == self._parameter_at else self.weight_NK.nbytes
        return folded + self.weight_KN.nbytes + 4 * self.weight_NK.numel()

    def product(self, x_RK: Tensor, out_RN: Tensor | None = None, rows: slice = WHOLE) -> Tensor:
        """``x W^T`` with these rows of W; into ``out`` if it is given."""
        return torch.mm(x_RK, self.weight_KN[:, rows], out=out_RN)

    def add_product(self, h_RN: Tensor, x_RK: Tensor, out_RN: Tensor) -> None:
        """``h + x W^T``; h and the sum are fp32."""
        if x_RK.dtype == h_RN.dtype:
            torch.addmm(h_RN, x_RK, self.weight_KN, out=out_RN)
        else:
            torch.add(h_RN, x_RK @ self.weight_KN, out=out_RN)

    def backward(self, dy_RN: Tensor, x_RK: Tensor, rows: slice = WHOLE) -> Tensor:
        """Adds to the weight's gradient; returns that of x, ``dy W``."""
        self.gradient.add(dy_RN, x_RK, rows)
        return dy_RN @ self.weight_NK[rows]


class _Anchor(torch.autograd.Function):
    """Hands on what was summed, when all who use the weight are through."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, norm_weight: Tensor | None, gradient: GradientSum) -> Tensor:
        ctx.save_for_backward(weight, norm_weight)
        ctx.gradient = gradient
        return weight.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, norm_weight = ctx.saved_tensors
        total = ctx.gradient.take()
        if total is None or norm_weight is None:
            return total, None, None
        return total * norm_weight, (total * weight).sum(0), None
