"""Checks of what is installed: versions against the package's own requirements, torch's build, the time of imports."""

import importlib.metadata
import importlib.util
import platform
import shutil
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.cli.doctor.finding import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "sleep-lightning"
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
SLOW_IMPORT_S = 30.0
TORCH_FOR_CUDA = "choose a CUDA build on https://pytorch.org/get-started/locally and install it"


@dataclass(frozen=True)
class Demands:
    """What the package demands.

    Attributes:
        python: version specifier; "" for any.
        packages: requirements that must be met here.
        optional: requirements of extras: need not be there, but should fit if they are.
    """

    python: str
    packages: "list[Requirement]"
    optional: "list[Requirement]"


def read_demands() -> Demands:
    """From pyproject.toml in a checkout (newer than what was installed from it), else from the installed metadata.

    Raises importlib.metadata.PackageNotFoundError: there is neither.
    """
    from packaging.requirements import Requirement

    if PYPROJECT.exists():
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        demanded = [Requirement(text) for text in project["dependencies"]]
        optional = [Requirement(text) for extra in extras.values() for text in extra]
        here = [[one for one in some if one.marker is None or one.marker.evaluate()] for some in (demanded, optional)]
        return Demands(project.get("requires-python", ""), *here)
    metadata = importlib.metadata.metadata(DISTRIBUTION)
    every = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    demanded = [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]
    names = metadata.get_all("Provides-Extra") or []
    optional = [
        one
        for one in every
        if one.marker is not None
        and one not in demanded
        and any(one.marker.evaluate({"extra": extra}) for extra in names)
    ]
    return Demands((metadata.get_all("Requires-Python") or [""])[0], demanded, optional)


def check_python() -> Iterator[Finding]:
    """The interpreter against ``requires-python``."""
    from packaging.specifiers import SpecifierSet

    version, demanded = platform.python_version(), read_demands().python
    if SpecifierSet(demanded).contains(version, prereleases=True):
        yield Finding("Python", "ok", f"{version} (demanded {demanded or 'any'})")
    else:
        remedy = f"make an environment with Python {demanded} and install the package there"
        yield Finding("Python", "error", f"{version}, demanded {demanded}", remedy)


def check_packages() -> Iterator[Finding]:
    """Every requirement of the package: one row for all that are met, one for each that is not."""
    demands, met = read_demands(), dict[str, str]()
    needed = [(one, True) for one in demands.packages]
    for one, must in needed + [(one, False) for one in demands.optional]:
        install = f"python -m pip install '{one.name}{one.specifier}'"
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            if must:
                found = f"not installed, demanded {one.specifier or 'in any version'}"
                yield Finding(f"package {one.name}", "error", found, install)
            continue
        if one.specifier.contains(version, prereleases=True):
            met[one.name] = version
        else:
            found = f"{version}, demanded {one.specifier}" + ("" if must else " by an extra")
            yield Finding(f"package {one.name}", "error" if must else "warning", found, install)
    yield Finding("packages", "ok", f"{len(met)} as demanded: " + ", ".join(f"{n} {v}" for n, v in met.items()))


def check_imports(started: float) -> Iterator[Finding]:
    """Import all that ``fit`` needs.

    Args:
        started: when this process began, in seconds since the epoch.
    """
    importlib.import_module("sleep_lightning.cli.fit")
    seconds = time.time() - started
    found = f"{seconds:.1f} s from the start of the process until fit is imported"
    if seconds > SLOW_IMPORT_S:
        remedy = "put the environment on a local disk, not on a network one; a second start is faster than the first"
        yield Finding("imports", "warning", found, remedy)
    else:
        yield Finding("imports", "ok", found)


def check_torch_build() -> Iterator[Finding]:
    """Whether torch was built for CUDA, against whether the machine has an NVIDIA driver."""
    import torch

    built_for = torch.version.cuda
    found = f"torch {torch.__version__}, built for " + (f"CUDA {built_for}" if built_for else "CPU only")
    if shutil.which("nvidia-smi") is None or torch.cuda.is_available():
        yield Finding("torch build", "ok", found)
    elif built_for is None:
        yield Finding("torch build", "warning", f"{found}, but there is an NVIDIA driver", TORCH_FOR_CUDA)
    else:
        remedy = (
            f"see nvidia-smi: the driver must be new enough for CUDA {built_for}; unset CUDA_VISIBLE_DEVICES; "
            f"or {TORCH_FOR_CUDA}"
        )
        yield Finding("torch build", "warning", f"{found}, but torch cannot use the NVIDIA driver", remedy)


def check_gpu_kernel_packages() -> Iterator[Finding]:
    """Triton and flash-linear-attention, which only CUDA devices need."""
    import torch

    cuda = torch.cuda.is_available()
    for name, module in (("triton", "triton"), ("flash-linear-attention", "fla")):
        if importlib.util.find_spec(module) is not None:
            use = "" if cuda else ", not needed: no CUDA device"
            yield Finding(name, "ok", f"{_version(name)}{use}")
        elif cuda:
            remedy = f"python -m pip install {name}"
            yield Finding(name, "warning", "not installed: its kernels cannot run on the CUDA device", remedy)
        else:
            yield Finding(name, "ok", "not installed, not needed: no CUDA device")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
