import pytest
import torch
from torch.nn import functional as F

from sleep_lightning.ops.short_conv import short_conv


@pytest.mark.parametrize("T", [1, 2, 3, 4, 24])
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_is_silu_of_a_causal_depthwise_convolution(T: int, taps: int) -> None:
    wide = torch.randn(3, T, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(taps, 6, dtype=torch.float64, requires_grad=True)
    d = torch.randn(3, T, 6, dtype=torch.float64)
    x = wide[..., 2:8]
    padded = F.pad(x.transpose(1, 2), (taps - 1, 0))
    expected = F.silu(F.conv1d(padded, weight.t()[:, None], groups=6)).transpose(1, 2)
    actual = short_conv(x, weight)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad((y * d).sum(), (wide, weight), retain_graph=True) for y in (actual, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision_keeps_its_dtype() -> None:
    x = torch.randn(2, 5, 4, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(4, 4, requires_grad=True)
    y = short_conv(x, weight)
    assert y.dtype == torch.bfloat16
    dx, dw = torch.autograd.grad(y.float().sum(), (x, weight))
    assert dx.dtype == torch.bfloat16
    assert dw.dtype == torch.float32
