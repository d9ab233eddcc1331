"""Where a run ran: versions, commit, machine. Recorded, so that a number can be traced."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from sleep_lightning import __version__
from sleep_lightning.config import Experiment
from sleep_lightning.config.plugin_model import PluginModel
from sleep_lightning.machine.cores import cores
from sleep_lightning.model import ModelConfig

PACKAGES = ("torch", "lightning", "flash-linear-attention", "triton", "omegaconf", "mlflow")


def describe_environment(device: torch.device, model: ModelConfig | PluginModel | None = None) -> dict[str, str]:
    """Plain strings: package versions, git commit (``-dirty`` if changed), machine, device, threads, and the
    backend of each memory rule of the model (the default's without one)."""
    return describe_machine(device, model) | {"git_commit": git_commit()}


def describe_machine(device: torch.device, model: ModelConfig | PluginModel | None = None) -> dict[str, str]:
    """The same without the commit, for which git is run."""
    facts = {"sleep_lightning": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    allowed, present = cores(), os.cpu_count()
    of_them = "" if allowed == present else f"{allowed} of "
    facts["machine"] = f"{platform.system()} {platform.machine()}, {of_them}{present} cores"
    facts["cpu"] = f"{_cpu()}, {torch.backends.cpu.get_cpu_capability()}"
    facts["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts["threads"] = str(torch.get_num_threads())
    model = model or ModelConfig()
    if not isinstance(model, ModelConfig):
        return facts
    for rule in model.rules:
        facts[rule.name] = rule.select(torch.empty(1, 1, 1, model.key_dim_per_head, device=device), model.backend)
    return facts


def _cpu() -> str:
    """The processor's name; "unknown" where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def git_commit() -> str:
    """Commit of the checkout this package lies in, ``-dirty`` if tracked files differ; "unknown" outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def check_device(experiment: Experiment) -> torch.device:
    """The device the experiment will run on. Raises ValueError if it, or the backend on it, is not there."""
    wanted, present = experiment.training.accelerator, torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise ValueError("training.accelerator='cuda' but torch sees no CUDA device here; use auto or cpu")
    on_cuda = {
        "cuda_graph=true": experiment.training.cuda_graph,
        "fp32_matmul='tf32'": experiment.training.fp32_matmul == "tf32",
    }
    if (not present or wanted == "cpu") and (misplaced := [key for key, chosen in on_cuda.items() if chosen]):
        raise ValueError(f"training.{misplaced[0]} needs a CUDA device, and this would run on the CPU; drop it")
    device = torch.device("cuda" if present and wanted != "cpu" else "cpu")
    if isinstance(model := experiment.model, ModelConfig):
        k = torch.empty(1, experiment.sleep.window_size, 1, model.key_dim_per_head, device=device)
        for rule in experiment.memory_rules:
            rule.select(k, model.backend)
    return device
