"""Energy in joules, where the machine counts it: CPUs by RAPL, an NVIDIA GPU by NVML.

The counters are of whole chips: what other processes on them use is in it.
"""

from pathlib import Path
from typing import Any, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """A counter of the machine."""

    name: str

    def joules(self) -> float:
        """Used since the counter was opened. Raises OSError if it cannot be read any more."""


class RaplCounter:
    """All CPU packages, and their memory where it is counted.

    A counter begins again at 0 after some 60 to 300 kJ: it must be read more often than that, see ``EnergyMeter``.
    """

    name = "CPU packages and their memory (RAPL)"

    def __init__(self, domains: list[Path]) -> None:
        self._range = {domain: _number(domain / "max_energy_range_uj") for domain in domains}
        self._last = {domain: _number(domain / "energy_uj") for domain in domains}
        self._microjoules = 0

    @classmethod
    def open(cls, powercap: Path = POWERCAP) -> "RaplCounter | None":
        """None where there is no RAPL, or only root may read it."""
        try:
            # not intel-rapl-mmio:*, which counts the same packages again, nor psys, which holds them
            names = {domain: (domain / "name").read_text().strip() for domain in powercap.glob("intel-rapl:*")}
            domains = [domain for domain, name in names.items() if name.startswith("package") or name == "dram"]
            return cls(sorted(domains)) if domains else None
        except (OSError, ValueError):
            return None

    def joules(self) -> float:
        for domain, before in self._last.items():
            now = _number(domain / "energy_uj")
            self._microjoules += now - before + (self._range[domain] if now < before else 0)
            self._last[domain] = now
        return self._microjoules / 1e6


def _number(file: Path) -> int:
    return int(file.read_text())


class NvmlCounter:
    """One NVIDIA GPU, from Volta on."""

    name = "GPU (NVML)"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._first = self._millijoules()

    @classmethod
    def open(cls, device: torch.device) -> "NvmlCounter | None":
        """None where NVML, or its Python package nvidia-ml-py, is missing or does not count this GPU."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            # by its UUID: NVML numbers all GPUs of the machine, torch only those of CUDA_VISIBLE_DEVICES
            uuid = torch.cuda.get_device_properties(device).uuid
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except (pynvml.NVMLError, OSError):
            return None

    def _millijoules(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise OSError(str(error)) from error

    def joules(self) -> float:
        return (self._millijoules() - self._first) / 1e3


class EnergyMeter:
    """The sum of the counters a run on a device concerns.

    Attributes:
        sources: what is counted, in words; "" for nothing.
    """

    def __init__(self, counters: list[EnergyCounter]) -> None:
        self._counters: list[EnergyCounter] = counters
        self.sources = " + ".join(dict.fromkeys(counter.name for counter in counters))

    @classmethod
    def of(cls, *devices: torch.device) -> "EnergyMeter":
        """CPU, and those of the devices that are GPUs. Nothing if one of them reports none: the rest would mislead."""
        gpus = [NvmlCounter.open(device) for device in devices if device.type == "cuda"]
        if None in gpus:
            return cls([])
        return cls([counter for counter in (RaplCounter.open(), *gpus) if counter is not None])

    def joules(self) -> float | None:
        """Used since the meter was made; None if the machine reports none (and from then on, if it stops reporting)."""
        try:
            return sum(counter.joules() for counter in self._counters) if self._counters else None
        except OSError:
            self._counters = []
            return None
