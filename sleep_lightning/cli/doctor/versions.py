"""Installed versions against the package's own requirements."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sleep_lightning.cli.doctor.finding import Finding

DISTRIBUTION = "sleep-lightning"


def check_versions() -> Iterator[Finding]:
    """Python, and every requirement: one row for all that are met, one for each that is not.

    Requirements of extras need not be installed, but should fit if they are.
    """
    python, wanted = platform.python_version(), metadata(DISTRIBUTION)["Requires-Python"] or ""
    fits = SpecifierSet(wanted).contains(python, prereleases=True)
    remedy = "" if fits else f"make an environment with Python {wanted} and install the package there"
    yield Finding("Python", "ok" if fits else "error", f"{python} (requires {wanted or 'any'})", remedy)
    met = dict[str, None]()  # each once, though several extras may name it
    extras = metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for one in map(Requirement, requires(DISTRIBUTION) or []):
        needed = one.marker is None or one.marker.evaluate({"extra": ""})
        if not needed and not any(one.marker and one.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            installed = version(one.name)
        except PackageNotFoundError:
            if not needed:
                continue
            installed = "not installed"
        else:
            if one.specifier.contains(installed, prereleases=True):
                met[f"{one.name} {installed}"] = None
                continue
        found = f"{installed}, requires {one.specifier or 'any version'}{'' if needed else ' (an extra)'}"
        install = f"python -m pip install '{one.name}{one.specifier}'"
        yield Finding(f"package {one.name}", "error" if needed else "warning", found, install)
    yield Finding("packages", "ok", f"{len(met)} fit: {', '.join(met)}")


def check_devices() -> Iterator[Finding]:
    """torch's build, and the CUDA devices it can use."""
    import torch

    found = f"torch {torch.__version__} for " + (f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("devices", "ok", f"{found}; " + (", ".join(devices) or "no CUDA device: everything runs on the CPU"))
