"""Missing and broken compilers, wrong kernels."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.cli.doctor import kernels
from sleep_lightning.cli.doctor.finding import run_checks
from sleep_lightning.ops import gated_delta_rule
from sleep_lightning.ops.cpp import build
from sleep_lightning.ops.dispatch import Backend, anywhere
from tests.cli.doctor.rows import by_check, sole

Patch = pytest.MonkeyPatch


@pytest.fixture
def fresh_build(tmp_path: Path, monkeypatch: Patch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(build.SWITCH, raising=False)
    build._load.cache_clear()
    yield
    build._load.cache_clear()


@pytest.mark.usefixtures("fresh_build")
def test_no_compiler(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = by_check(run_checks([("n", kernels.check_native)]))
    assert rows["CPU kernels"].state == "warning"
    assert "no C++ compiler" in rows["CPU kernels"].found and "CXX" in rows["CPU kernels"].remedy
    assert "chunked" in kernels.judge(gated_delta_rule, torch.device("cpu"), torch.float32, 8, (4,)).found


@pytest.mark.usefixtures("fresh_build")
def test_a_compiler_that_fails(monkeypatch: Patch) -> None:
    monkeypatch.setenv("CXX", "false")
    rows = by_check(run_checks([("n", kernels.check_native)]))
    assert rows["CPU kernels"].state == "warning"


def test_switched_off(monkeypatch: Patch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    row = sole(kernels.check_native())
    assert row.state == "warning" and f"unset {build.SWITCH}" in row.remedy


@pytest.mark.parametrize("fault", ["wrong", "raises"])
def test_a_wrong_kernel(fault: str, monkeypatch: Patch) -> None:
    right = gated_delta_rule.backends["reference"].run

    def kernel(**inputs: Any) -> tuple[Tensor | None, Tensor]:
        if fault == "raises":
            raise RuntimeError("illegal instruction")
        o, state = right(**inputs)
        return o, 1.01 * state

    monkeypatch.setitem(gated_delta_rule.backends, "triton", Backend(kernel, anywhere))
    rows = by_check(kernels.check_rules())
    row = rows["gated_delta_rule on cpu"]
    assert row.state == "error" and rows["gated_hebbian on cpu"].state == "ok"
    assert "24 tokens: triton" in row.found and "128 tokens: triton" in row.found
    assert ("final_state is off by 1.0e-02" if fault == "wrong" else "illegal instruction") in row.found
    assert "model.backend=" in row.remedy and "triton must not be used" in row.remedy


def test_a_kernel_that_failed_its_own_test_is_named(monkeypatch: Patch) -> None:
    def why_not(k: Tensor) -> str:
        warnings.warn("the kernel is wrong on this GPU; it will not be used", RuntimeWarning, stacklevel=2)
        return "wrong"

    monkeypatch.setitem(gated_delta_rule.backends, "triton", Backend(gated_delta_rule.backends["native"].run, why_not))
    row = kernels.judge(gated_delta_rule, torch.device("cpu"), torch.float32, 8, (4,))
    assert row.state == "warning" and "wrong on this GPU" in row.found and row.remedy
