"""What a GPU kernel must show on a device before its first use there: outputs, state and gradients of a small case.

Kernels of the delta rule have been wrong on some pairs of GPU and Triton, silently or by an error of their own.
"""

import warnings

import torch
from torch import Tensor

from sleep_lightning.ops.dispatch import Kernel

FP32_TOLERANCE = 1e-4
"""``tolerance`` of a kernel that multiplies fp32 exactly."""
TF32_TOLERANCE = 1e-2
"""``tolerance`` of a kernel that multiplies fp32 in TF32."""


def self_test(
    kernel: Kernel,
    reference: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    K: int,
    *,
    tokens: int,
    heads: int = 2,
    tolerance: float = FP32_TOLERANCE,
    gradients: bool = True,
) -> str | None:
    """How ``kernel`` differs from ``reference`` in float64 on CPU; None: it agrees.

    Args:
        kernel: what is tested, on ``device``.
        reference: the definition.
        device: where the kernel runs.
        dtype: of q, k and v.
        K: key and value dim.
        tokens: length of the case: longer than a chunk of the kernel.
        heads: H of the case.
        tolerance: largest error in fp32, as a share of the largest value; in half precision at least 3e-2.
        gradients: False for a kernel that has none.
    """
    T, H = tokens, heads
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")

    k = torch.nn.functional.normalize(randn(1, T, H, K), dim=-1)
    inputs = {"q": randn(1, T, H, K), "k": k, "v": randn(1, T, H, K)}
    inputs = {name: x.to(dtype).double() for name, x in inputs.items()}
    inputs |= {"g": -randn(1, T, H).abs(), "beta": randn(1, T, H).sigmoid(), "initial_state": randn(1, H, K, K)}
    inputs["g"][:, T // 2] = -torch.inf  # as between packed sequences
    d_o, d_state = randn(1, T, H, K), randn(1, H, K, K)

    def results(run: Kernel, device: torch.device, half: torch.dtype, full: torch.dtype) -> dict[str, Tensor]:
        leaves = {n: x.to(device, half if n in "qkv" else full).requires_grad_() for n, x in inputs.items()}
        o, state = run(**leaves, scale=K**-0.5)  # type: ignore[call-arg]
        assert o is not None
        if not gradients:
            return {"o": o.detach(), "final_state": state.detach()}
        d = torch.autograd.grad((o, state), list(leaves.values()), (d_o.to(o), d_state.to(state)))
        return {"o": o.detach(), "final_state": state.detach()} | {f"d_{n}": x for n, x in zip(leaves, d, strict=True)}

    try:
        with torch.inference_mode(False), torch.enable_grad():
            expected = results(reference, torch.device("cpu"), torch.float64, torch.float64)
            actual = results(kernel, device, dtype, torch.float32)
    except Exception as failure:  # of the compiler, the driver, memory: whatever it is, the kernel is not to be used
        return f"it raises {type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
    allowed = tolerance if dtype == torch.float32 else max(tolerance, 3e-2)
    for name, x in actual.items():
        error = float((x.double().cpu() - expected[name]).abs().max() / expected[name].abs().max())
        if not error <= allowed:
            return f"{name} is off by {error:.1e} of its largest value"
    return None


def warned(name: str, fault: str | None, device: torch.device, dtype: torch.dtype, K: int) -> str | None:
    """The reason not to use a kernel with that fault, after a RuntimeWarning that says so; None without a fault."""
    if fault is None:
        return None
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    reason = f"{name} is wrong on {where} ({dtype}, K={K}): {fault}"
    warnings.warn(f"{reason}; it will not be used", RuntimeWarning, stacklevel=3)
    return reason
