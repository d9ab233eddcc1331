"""Checks of the machine: threads, CUDA devices, fp32 products, energy counters, the temporary folder."""

import math
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sleep_lightning.cli.doctor.cgroup import cpu_limit
from sleep_lightning.cli.doctor.finding import Finding, one_line


def check_threads() -> Iterator[Finding]:
    """torch's threads against the cores this process may use."""
    import psutil
    import torch

    threads, machine = torch.get_num_threads(), os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    limit, asked = cpu_limit(), os.environ.get("OMP_NUM_THREADS")
    usable = allowed if limit is None else max(1, min(allowed, math.ceil(limit)))
    physical = min(usable, psutil.cpu_count(logical=False) or usable)  # torch takes one thread a physical core
    found = (
        f"{threads} {'thread' if threads == 1 else 'threads'} of torch, {usable} usable of {machine} cores"
        + (f", cgroup limit {limit:g}" if limit is not None else "")
        + (f", OMP_NUM_THREADS={asked}" if asked else "")
    )
    if threads > usable:
        remedy = f"export OMP_NUM_THREADS={usable}, or training.threads={usable}: threads without a core only wait"
        yield Finding("CPU threads", "warning", found, remedy)
    elif threads < physical:
        remedy = f"unset OMP_NUM_THREADS, or training.threads={physical}, unless other runs share the cores"
        yield Finding("CPU threads", "warning", found, remedy)
    else:
        yield Finding("CPU threads", "ok", found)


def check_cuda() -> Iterator[Finding]:
    """A row for each CUDA device: name, memory, capability, driver, and whether a kernel runs on it."""
    import torch

    if not torch.cuda.is_available():
        yield Finding("CUDA devices", "ok", "none that torch can use: everything runs on the CPU")
        return
    built_for, driver = torch.cuda.get_arch_list(), _driver()
    for index in range(torch.cuda.device_count()):
        name = f"CUDA device {index}"
        major, minor = torch.cuda.get_device_capability(index)
        try:
            free, total = torch.cuda.mem_get_info(index)
            found = (
                f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, "
                f"capability {major}.{minor}, driver {driver}"
            )
            torch.ones(8, device=f"cuda:{index}").sum().item()
        except RuntimeError as error:
            remedy = "see in nvidia-smi whether another process holds it, or training.accelerator=cpu"
            if f"sm_{major}{minor}" not in built_for:
                remedy = (
                    f"torch is built for {', '.join(built_for)}, the device is sm_{major}{minor}: "
                    f"install a build that has it, or training.accelerator=cpu"
                )
            yield Finding(name, "error", one_line(error), remedy)
            continue
        yield Finding(name, "ok", found)


def _driver() -> str:
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return "unknown"


def check_fp32_matmul() -> Iterator[Finding]:
    """What ``training.fp32_matmul=auto`` takes here."""
    import torch

    from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul

    before = torch.get_float32_matmul_precision()
    try:
        yield Finding("fp32 products", "ok", f"training.fp32_matmul=auto takes {choose_fp32_matmul('auto')}")
    finally:
        torch.set_float32_matmul_precision(before)


def check_energy() -> Iterator[Finding]:
    """Whether runs here can record joules."""
    import torch

    from sleep_lightning.training.callbacks.energy import POWERCAP, EnergyMeter

    sources = EnergyMeter.of(torch.device("cuda" if torch.cuda.is_available() else "cpu")).sources
    if sources:
        yield Finding("energy", "ok", f"runs record {sources}")
    elif any(POWERCAP.glob("intel-rapl:*/energy_uj")):
        remedy = f"let everyone read it: sudo chmod a+r {POWERCAP}/intel-rapl:*/energy_uj"
        yield Finding("energy", "warning", "only root may read the CPU's counters: runs record no energy", remedy)
    else:
        yield Finding("energy", "ok", "the machine does not tell: runs record none")


def check_temporary_folder() -> Iterator[Finding]:
    """Whether files can be written where Python, MLflow and Triton put temporary ones."""
    asked = os.environ.get("TMPDIR")
    folder = Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"doctor")
    if asked and Path(asked).absolute() != folder.absolute():
        found = f"TMPDIR={asked} cannot be written, {folder} is used instead"
        yield Finding("temporary folder", "warning", found, f"mkdir -p {shlex.quote(asked)}, or unset TMPDIR")
    else:
        yield Finding("temporary folder", "ok", f"{folder} can be written")
