import pytest
import torch
from torch.nn import functional as F

from sleep_lightning.ops import dynamic_conv, short_conv


@pytest.mark.parametrize("past", [0, 1, 3, 5])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("J", [1, 2, 4])
def test_is_silu_of_a_convolution_with_taps_of_its_own_at_every_token(past: int, T: int, J: int) -> None:
    wide = torch.randn(3, past + T, 8, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(3, T, J, 5, dtype=torch.float64, requires_grad=True)
    d = torch.randn(3, T, 5, dtype=torch.float64)
    windows_BSCJ = F.pad(wide[..., 2:7], (0, 0, J - 1, 0)).unfold(1, J, 1)
    expected = F.silu((windows_BSCJ[:, past:].transpose(2, 3) * taps).sum(2))
    actual = dynamic_conv(wide[..., 2:7], taps)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad((y * d).sum(), (wide, taps), retain_graph=True) for y in (actual, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_taps_that_do_not_change_are_a_short_convolution() -> None:
    x, taps = torch.randn(2, 9, 5), torch.randn(4, 5)
    torch.testing.assert_close(dynamic_conv(x, taps.expand(2, 9, 4, 5)), short_conv(x, taps))


def test_half_precision_keeps_its_dtype() -> None:
    x = torch.randn(2, 5, 4, dtype=torch.bfloat16, requires_grad=True)
    taps = torch.randn(2, 5, 4, 4, requires_grad=True)
    y = dynamic_conv(x, taps)
    assert y.dtype == torch.bfloat16
    dx, d_taps = torch.autograd.grad(y.float().sum(), (x, taps))
    assert (dx.dtype, d_taps.dtype) == (torch.bfloat16, torch.float32)
