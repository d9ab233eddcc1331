"""Which library multiplies fp32 matrices. A setting of the process, so chosen once, by the command."""

import torch

TOLERANCE = 2e-6
"""Relative error of a K = 512 product in fp32 is about 2e-7; in bf16 or TF32 it is above 1e-4."""


def choose_fp32_matmul(mode: str) -> str:
    """Set the fp32 matmul mode of this process and say in words what it is.

    On CPUs torch's "medium" hands fp32 products to oneDNN, up to twice as fast. On some CPUs (AMX) and on GPUs the
    same switch lowers the precision, so it is taken only if a product against float64 shows real fp32. The choice
    depends on the probe's result and not on its speed: the same machine always chooses the same.

    Args:
        mode: ``auto`` probes; ``torch`` changes nothing; ``tf32`` lets a GPU round the factors to TF32.
    """
    if mode == "tf32":
        torch.set_float32_matmul_precision("high")
        return "TF32"
    if mode == "torch" or torch.cuda.is_available():
        return f"torch ({torch.get_float32_matmul_precision()})"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    error = float(((a @ b).double() - exact).norm() / exact.norm())
    batched = float(
        (
            torch.bmm(a.view(8, 64, 512), b.view(8, 512, 64)).double()
            - torch.bmm(a.view(8, 64, 512).double(), b.view(8, 512, 64).double())
        ).norm()
        / exact.norm()
    )
    if max(error, batched) <= TOLERANCE:
        return "oneDNN fp32"
    torch.set_float32_matmul_precision(before)
    return f"torch ({before}): oneDNN lowers the precision here (relative error {max(error, batched):.0e})"
