"""Compiles the window kernels for GPUs this machine need not have, and bounds what they cost there.

The calls go through the real operators and Triton's real launch path, with a stand-in driver that names a GPU and
launches that stop after compiling: what is measured is what production runs.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.ops.gated_delta_rule.triton_window import triton_gated_delta_rule
from sleep_lightning.testing.rule_calls import make_inputs
from tests.precision import fp32_matmul

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted kernels do not compile")

SHARED_MEMORY = 99 * 1024
"""Bytes a program may take on the CUDA GPUs that have the least (sm_86, sm_89)."""

MOST_SPILLED = {
    (torch.float32, 64): (576, 1216),
    (torch.float32, 128): (512, 192),
    (torch.bfloat16, 64): (176, 576),
    (torch.bfloat16, 128): (240, 512),
}
"""Bytes per thread that forward and backward may spill, by dtype and K: what they do, rounded up. On an H100 these few
warps are faster than more that do not spill."""


class NamedGpu:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # a name to Triton: what it files the compiled kernels under

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compile_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Any]]:
    """``compile_for(capability)`` makes launches compile only, and returns the list they append their kernels to."""
    launch = triton.JITFunction.run
    kernels: list[Any] = []

    def compile_only(self: Any, *args: Any, warmup: bool, **options: Any) -> None:
        kernels.append(launch(self, *args, warmup=True, **options))

    def compile_for(capability: int) -> list[Any]:
        monkeypatch.setattr(triton.JITFunction, "run", compile_only)
        monkeypatch.setattr(triton.runtime.driver, "_active", NamedGpu(capability))
        return kernels

    return compile_for


def resources(kernel: Any, directory: Path) -> dict[str, int]:
    """Registers and spilled bytes per thread, and bytes of shared memory per program."""
    cubin = directory / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    dump = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", cubin]
    usage = dict(re.findall(r"(\w+):(\d+)", subprocess.run(dump, check=True, capture_output=True, text=True).stdout))
    return {"registers": int(usage["REG"]), "spilled": int(usage["STACK"]), "shared": kernel.metadata.shared}


@pytest.mark.process
@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("K", [64, 128])
def test_both_kernels_compile_once_and_what_they_take_is_known(
    compile_for: Callable[[int], list[Any]],
    tmp_path: Path,
    capability: int,
    dtype: torch.dtype,
    K: int,
) -> None:
    kernels = compile_for(capability)
    with fp32_matmul("highest"):
        for T in (24, 64):
            inputs = {n: x.requires_grad_() for n, x in make_inputs(2, T, 2, K, K, dtype=dtype).items()}
            o, state = triton_gated_delta_rule(**inputs, scale=K**-0.5)
            assert o is not None
            torch.autograd.grad(o.float().square().sum() + state.sum(), list(inputs.values()))
    forward, backward, *longer = kernels
    assert all(a is b for a, b in zip(longer, (forward, backward), strict=True)), "compiled again for another length"
    for kernel, most_spilled in zip((forward, backward), MOST_SPILLED[dtype, K], strict=True):
        used = resources(kernel, tmp_path)
        print(f"{kernel.name} sm_{capability} {dtype} K=V={K}: {used}")
        assert used["spilled"] <= most_spilled
        assert used["shared"] <= SHARED_MEMORY
