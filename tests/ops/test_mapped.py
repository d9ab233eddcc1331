import torch

from sleep_lightning.ops import mapped


def test_a_copy_through_which_gradients_pass() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        x = torch.randn(3, 4).to(dtype).requires_grad_(dtype != torch.int64)
        y = mapped(x)
        assert torch.equal(x, y)
        assert y.dtype == dtype
        assert y.data_ptr() != x.data_ptr()
        if x.requires_grad:
            (d,) = torch.autograd.grad((3 * y).sum(), x)
            assert torch.equal(d, torch.full_like(x, 3))


def test_outlives_nothing_and_is_writable() -> None:
    y = mapped(torch.zeros(1 << 20))
    assert float(y.add_(1).sum()) == 1 << 20
    assert mapped(torch.zeros(0, 3)).shape == (0, 3)
    assert mapped(torch.zeros(2, device="meta")).device.type == "meta"
