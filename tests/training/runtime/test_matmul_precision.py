from collections.abc import Iterator

import pytest
import torch

from sleep_lightning.training.runtime import matmul_precision
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_products_stay_fp32_in_the_chosen_mode() -> None:
    assert choose_fp32_matmul("auto")
    a, b = torch.randn(300, 700), torch.randn(700, 200)
    exact = a.double() @ b.double()
    assert ((a @ b).double() - exact).norm() < 1e-6 * exact.norm()


def test_a_mode_that_lowers_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul_precision, "TOLERANCE", 0.0)
    torch.set_float32_matmul_precision("highest")
    assert "lowers the precision" in choose_fp32_matmul("auto")
    assert torch.get_float32_matmul_precision() == "highest"


def test_torch_changes_nothing() -> None:
    torch.set_float32_matmul_precision("high")
    assert choose_fp32_matmul("torch") == "torch (high)"
    assert torch.get_float32_matmul_precision() == "high"
