"""Counters of a machine made up: a folder like the kernel's, a module like NVML's."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from sleep_lightning.training.callbacks import energy
from sleep_lightning.training.callbacks.energy import EnergyMeter, NvmlCounter, RaplCounter

CUDA = torch.device("cuda", 0)


def domain(powercap: Path, folder: str, name: str, microjoules: int, most: int = 1_000_000) -> Path:
    path = powercap / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    return path


def test_packages_and_their_memory_are_summed_and_nothing_twice(tmp_path: Path) -> None:
    counted = [
        domain(tmp_path, "intel-rapl:0", "package-0", 10),
        domain(tmp_path, "intel-rapl:0:1", "dram", 20),
        domain(tmp_path, "intel-rapl:1", "package-1", 30),
    ]
    parts = [("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")]
    others = [domain(tmp_path, folder, name, 5) for folder, name in parts]
    counter = RaplCounter.open(tmp_path)
    assert counter is not None
    assert counter.joules() == 0
    for path in [*counted, *others]:
        (path / "energy_uj").write_text("500030")
    assert counter.joules() == pytest.approx((500_020 + 500_010 + 500_000) / 1e6)
    assert counter.joules() == pytest.approx(1.50003)


def test_a_counter_that_begins_again_at_0_goes_on(tmp_path: Path) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0", 900_000)
    counter = RaplCounter.open(tmp_path)
    assert counter is not None
    for value, total in ((100_000, 0.2), (950_000, 1.05), (50_000, 1.15)):
        (package / "energy_uj").write_text(str(value))
        assert counter.joules() == pytest.approx(total)


def test_no_counter_where_none_can_be_read(tmp_path: Path) -> None:
    assert RaplCounter.open(tmp_path / "none") is None
    assert RaplCounter.open(tmp_path) is None
    package = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    (package / "energy_uj").unlink()
    (package / "energy_uj").mkdir()  # an OSError, also for root, who may read everything
    assert RaplCounter.open(tmp_path) is None


def test_a_counter_that_is_lost_on_the_way_tells_nothing_any_more(tmp_path: Path) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    counter = RaplCounter.open(tmp_path)
    assert counter is not None
    meter = EnergyMeter([counter])
    assert meter.joules() == 0
    (package / "energy_uj").unlink()
    assert meter.joules() is None
    (package / "energy_uj").write_text("7")
    assert meter.joules() is None


class FakeNvml(ModuleType):
    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules = {"GPU-aaaa": 1_000, "GPU-bbbb": 500_000}

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.millijoules:
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.millijoules[handle]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine of two GPUs; CUDA_VISIBLE_DEVICES=1 makes the second one cuda:0."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="bbbb"))
    return fake


def test_the_gpu_torch_sees_is_the_one_that_is_read(nvml: FakeNvml) -> None:
    counter = NvmlCounter.open(CUDA)
    assert counter is not None
    assert counter.joules() == 0
    nvml.millijoules = {"GPU-aaaa": 9_000_000, "GPU-bbbb": 502_500}
    assert counter.joules() == 2.5


def test_a_gpu_run_counts_both_or_says_nothing(nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    monkeypatch.setattr(energy, "RaplCounter", SimpleNamespace(open=lambda: RaplCounter.open(tmp_path)))
    meter = EnergyMeter.of(CUDA)
    (package / "energy_uj").write_text("250000")
    nvml.millijoules["GPU-bbbb"] += 1_000
    assert meter.joules() == pytest.approx(1.25)
    assert "RAPL" in meter.sources and "NVML" in meter.sources
    assert "NVML" not in EnergyMeter.of(torch.device("cpu")).sources
    assert EnergyMeter.of(CUDA, CUDA).sources == meter.sources  # named once, counted twice
    del nvml.millijoules["GPU-bbbb"]  # a GPU that NVML does not count
    untold = EnergyMeter.of(CUDA)
    assert (untold.sources, untold.joules()) == ("", None)


def test_without_the_package_there_is_no_gpu_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it raises ImportError
    assert NvmlCounter.open(CUDA) is None
