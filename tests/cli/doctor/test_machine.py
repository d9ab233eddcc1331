"""Threads, control groups, CUDA devices, energy counters, the temporary folder."""

import tempfile
from pathlib import Path

import psutil
import pytest
import torch

from sleep_lightning.cli.doctor import machine
from sleep_lightning.cli.doctor.cgroup import cpu_limit, memory_left
from sleep_lightning.cli.doctor.finding import run_checks
from sleep_lightning.training.callbacks.energy import EnergyMeter
from tests.cli.doctor.rows import sole

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: Patch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 32)


@pytest.mark.parametrize(
    ("threads", "limit", "state", "remedy"),
    [
        (8, None, "ok", ""),
        (64, None, "warning", "OMP_NUM_THREADS=8"),
        (8, 2.5, "warning", "OMP_NUM_THREADS=3"),
        (1, None, "warning", "training.threads=8"),
    ],
)
def test_threads(threads: int, limit: float | None, state: str, remedy: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(machine, "cpu_limit", lambda: limit)
    row = sole(machine.check_threads())
    assert row.state == state and remedy in row.remedy
    assert "8 usable of 64" in row.found or limit


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(version: int, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:memory:/a/b\n4:cpu,cpuacct:/a/b\n3:devices:/\n" if version == 1 else "0::/a/b\n")
    files = {
        1: {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
            "memory/a/b/memory.limit_in_bytes": "1000\n",
            "memory/a/b/memory.usage_in_bytes": "400\n",
        },
        2: {
            "a/b/cpu.max": "max 100000\n",
            "a/cpu.max": "150000 100000\n",
            "a/b/memory.max": "1000\n",
            "a/b/memory.current": "400\n",
            "a/memory.max": "max\n",
            "a/memory.current": "999\n",
        },
    }[version]
    assert cpu_limit(tmp_path, own) is None and memory_left(tmp_path, own) is None
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_limit(tmp_path, own) == 1.5
    assert memory_left(tmp_path, own) == 600
    assert cpu_limit(tmp_path, tmp_path / "not Linux") is None


@pytest.fixture
def one_gpu(monkeypatch: Patch) -> None:
    """What torch would say of one GPU; no kernel can run on it."""
    for name, value in {"is_available": True, "device_count": 1, "get_arch_list": ["sm_80", "sm_90"]}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (40 * 10**9, 80 * 10**9))
    monkeypatch.setattr(machine, "_driver", lambda: "570.1")


@pytest.mark.usefixtures("one_gpu")
def test_a_cuda_device_that_runs(monkeypatch: Patch) -> None:
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size))
    row = sole(machine.check_cuda())
    assert row.state == "ok"
    assert row.found == "NVIDIA H100, 40.0 of 80.0 GB free, capability 9.0, driver 570.1"


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("capability", "remedy"), [((5, 2), "torch is built for sm_80, sm_90"), ((9, 0), "nvidia-smi")]
)
def test_a_cuda_device_that_does_not(capability: tuple[int, int], remedy: str, monkeypatch: Patch) -> None:
    def fails(size: int, device: str) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(torch, "ones", fails)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    row = sole(machine.check_cuda())
    assert row.state == "error" and "no kernel image" in row.found
    assert remedy in row.remedy and "training.accelerator=cpu" in row.remedy


def test_fp32_products_change_nothing() -> None:
    before = torch.get_float32_matmul_precision()
    assert sole(machine.check_fp32_matmul()).state == "ok"
    assert torch.get_float32_matmul_precision() == before


def test_energy_that_only_root_may_read(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(EnergyMeter, "of", lambda device: EnergyMeter([]))
    monkeypatch.setattr("sleep_lightning.training.callbacks.energy.POWERCAP", tmp_path)
    assert sole(machine.check_energy()).state == "ok"
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")
    row = sole(machine.check_energy())
    assert row.state == "warning" and "chmod" in row.remedy


def test_temporary_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    row = sole(machine.check_temporary_folder())
    assert row.state == "warning" and str(tmp_path / "none") in row.found
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone since"))
    assert sole(run_checks([("temporary folder", machine.check_temporary_folder)])).state == "error"
