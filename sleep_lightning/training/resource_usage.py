"""Measures what a run takes: wall time, tokens/s, peak memory, energy."""

import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from sleep_lightning.training.callbacks.energy import EnergyMeter

MEASURED = ("wall_s", "tokens_per_s", "peak_memory_bytes", "step_memory_bytes", "energy_j")
"""What ``ResourceUsage.measured`` may report; seconds, 1/s, bytes, joules."""
ENERGY_EVERY = 30.0
"""Seconds between two readings of the energy counters at least: they wrap around after minutes."""


class ResourceUsage:
    """Measures one run, however often it is resumed: each process continues from what its checkpoint had measured.

    Of several ranks each measures its own memory and all the time; what rank zero measured is recorded.

    Wall time counts from the making of this object, energy from ``begin``, both with validations. Tokens/s are of
    training alone: drawing batches, steps, logs and checkpoints, without validations.
    """

    def __init__(self) -> None:
        forget_peak()
        self._held, self._made = resident_bytes(), time.monotonic()
        self._device, self._energy_read = torch.device("cpu"), self._made
        self._meter: EnergyMeter | None = None
        self._training_since: float | None = None
        self._wall_before, self._train_before, self._untimed_steps = 0.0, 0.0, 0
        self._energy_before: float | None = 0.0
        self._peak_before = 0
        self._peak_of_steps: int | None = None

    def begin(self, device: torch.device, size: int = 1, local_size: int = 1) -> None:
        """Training begins on this device, with so many ranks, in all and on this node.

        Energy is that of all devices of the node; it is not reported for multi-node runs.
        """
        devices = [device]
        if device.type == "cuda" and size > 1:
            devices = [torch.device("cuda", i) for i in range(local_size)]
        self._device = device
        self._meter = EnergyMeter.of(*devices) if size == local_size else EnergyMeter([])
        self.resume()

    def resume(self) -> None:
        """Steps come next."""
        self._training_since = time.monotonic()

    def pause(self) -> None:
        """Validations come next, or the end."""
        if self._training_since is None:
            return
        if self._device.type == "cuda":  # steps are only queued: without this, validation would pay for the last ones
            torch.cuda.synchronize(self._device)
        self._train_before, self._training_since = self.train_s, None
        if self._peak_of_steps is None:  # later peaks may be those of a validation
            self._peak_of_steps = self._peak() - (self._held if self._device.type == "cpu" else 0)

    def keep_energy(self) -> None:
        """Read the energy counters if it is time; call it between steps, so that no wrap-around is missed."""
        if time.monotonic() - self._energy_read > ENERGY_EVERY:
            self._energy_read = time.monotonic()
            _ = self.energy_j

    @property
    def energy_sources(self) -> str:
        """What the energy is of, in words; "" if the machine does not report any."""
        return self._meter.sources if self._meter is not None else ""

    @property
    def wall_s(self) -> float:
        """Seconds spent on the run."""
        return self._wall_before + time.monotonic() - self._made

    @property
    def train_s(self) -> float:
        """Seconds of it in training, without validations."""
        running = 0.0 if self._training_since is None else time.monotonic() - self._training_since
        return self._train_before + running

    @property
    def energy_j(self) -> float | None:
        """Joules; None unless the machine reported them for the whole run."""
        if self._meter is None:  # nothing was trained here
            return self._energy_before or None
        now = self._meter.joules()
        return None if now is None or self._energy_before is None else self._energy_before + now

    @property
    def peak_memory_bytes(self) -> int:
        """On CUDA, most bytes of tensors at a time; else the process's largest resident size since the run's module
        was made (since the process began, where the system cannot forget an older peak)."""
        self._peak_before = max(self._peak_before, self._peak())  # Linux gives one that may fall by some pages
        return self._peak_before

    @property
    def step_memory_bytes(self) -> int | None:
        """What training steps alone took at most, weights and optimizer included, libraries not: as it was before the
        first validation of the run, None until then."""
        return self._peak_of_steps

    def measured(self, steps: int, step_tokens: float) -> dict[str, float]:
        """Flat figures after so many steps of the run, of so many tokens on average; unknown ones are left out."""
        timed = (steps - self._untimed_steps) * step_tokens
        figures = {
            "wall_s": self.wall_s,
            "tokens_per_s": timed / self.train_s if timed and self.train_s else None,
            "peak_memory_bytes": self.peak_memory_bytes,
            "step_memory_bytes": self.step_memory_bytes,
            "energy_j": self.energy_j,
        }
        return {name: float(value) for name, value in figures.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """What goes into a checkpoint."""
        return {
            "wall_s": self.wall_s,
            "train_s": self.train_s,
            "untimed_steps": self._untimed_steps,
            "energy_j": self.energy_j,
            "peak_memory_bytes": self.peak_memory_bytes,
            "step_memory_bytes": self.step_memory_bytes,
        }

    def load_state_dict(self, state: dict[str, Any], steps: int) -> None:
        """Continue from a checkpoint after ``steps`` steps; one that knows nothing but ``wall_s`` is fine."""
        self._wall_before, self._train_before = state["wall_s"], state.get("train_s", 0.0)
        self._untimed_steps = state["untimed_steps"] if "train_s" in state else steps
        self._energy_before, self._peak_before = state.get("energy_j"), state.get("peak_memory_bytes", 0)
        self._peak_of_steps = state.get("step_memory_bytes")

    def _peak(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return peak_resident_bytes()


def resident_bytes() -> int:
    """Memory the process holds."""
    return int(psutil.Process().memory_info().rss)


def forget_peak() -> None:
    """Let ``peak_resident_bytes`` count from now (Linux; elsewhere nothing happens)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident_bytes() -> int:
    """Largest memory the process has held, since ``forget_peak`` where that works."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # unlike ru_maxrss, not that of the parent this process was forked from
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
