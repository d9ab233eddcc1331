import mmap
from collections.abc import Iterator

import pytest
import torch

from sleep_lightning.ops import mapped, reuse_mappings
from sleep_lightning.training.callbacks.resource_monitor import resident_bytes


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


@pytest.fixture
def reuse() -> Iterator[None]:
    reuse_mappings(True)
    yield
    reuse_mappings(False)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the mappings that are asked of the system."""
    sizes: list[int] = []
    new = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", lambda fd, nbytes: (sizes.append(nbytes), new(fd, nbytes))[1])
    return sizes


@pytest.mark.usefixtures("reuse")
def test_what_a_tensor_has_left_is_the_next_ones_of_its_size(made: list[int]) -> None:
    x = torch.randn(1 << 16)
    for _ in range(3):
        assert torch.equal(mapped(x), x)
    kept, other = mapped(x), mapped(2 * x)
    assert torch.equal(kept, x) and torch.equal(other, 2 * x)
    assert made == [x.nbytes, x.nbytes]  # the one that was in use was nobody else's


@pytest.mark.usefixtures("reuse")
def test_a_view_keeps_its_mapping() -> None:
    x = torch.randn(1 << 16)
    part = mapped(x)[10:]
    mapped(-x)
    assert torch.equal(part, x[10:])


def held_after_sizes(n: int) -> int:
    """Bytes that stay when copies of n sizes, a MiB and more, have come and gone."""
    before = resident_bytes()
    for i in range(n):
        mapped(torch.ones((1 << 18) + 1024 * i))
    return resident_bytes() - before


@pytest.mark.usefixtures("reuse")
def test_mappings_of_other_sizes_go_back() -> None:
    held_after_sizes(3)
    assert held_after_sizes(64) < 16 << 20


def test_unasked_all_go_back(made: list[int]) -> None:
    reuse_mappings(False)
    for _ in range(3):
        mapped(torch.zeros(1 << 16))
    assert len(made) == 3
