"""Builds and loads the C++ kernels: once per machine, at the first call, into the user's cache directory."""

import ctypes
import functools
import hashlib
import os
import platform
import warnings
from pathlib import Path

import torch

from sleep_lightning.machine.private import cache_directory
from sleep_lightning.ops.cpp.cache import builder, find, keep
from sleep_lightning.ops.cpp.compiler import COMPILE_SECONDS, BuildError, compiler, run

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
SWITCH = "SLEEP_LIGHTNING_NATIVE"
# No -ffast-math: the order of sums and the meaning of NaN and infinity are kept.
FLAGS = [
    "-std=c++17",
    "-O2",
    "-ftree-vectorize",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
    "-fopenmp",
]
LINK = ["-Wl,--as-needed", "-Wl,--no-undefined"]


def torch_openmp() -> list[str]:
    """The OpenMP runtime in torch's wheel, if any: a second thread pool would compete with torch's for the cores."""
    root = Path(torch.__file__).parent
    for directory in (root / "lib", root.parent / "torch.libs"):
        for pattern in ("libgomp*.so*", "libiomp5*.so*"):
            if found := sorted(directory.glob(pattern)):
                return [str(found[0]), f"-Wl,-rpath,{directory}"]
    return []


def _cpu() -> str:
    """What -march=native depends on: a home directory shared with another CPU must not share the library."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    features = {line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}
    return "\n".join([platform.machine(), *sorted(features)])


def build() -> Path:
    """The library for this source, compiler, CPU and torch, built if the cache has none that is whole.

    Several processes may ask at once: one builds. Raises BuildError.
    """
    command, openmp = compiler(), torch_openmp()
    parts = [
        *(path.read_text() for path in SOURCES + HEADERS),
        *FLAGS,
        *LINK,
        *openmp,
        run([*command, "--version"]),
        _cpu(),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    try:
        folder = cache_directory()
        if (library := find(folder, key)) is not None:
            return library
        with builder(folder, COMPILE_SECONDS) as temporary:
            if (library := find(folder, key)) is not None:  # another process was first
                return library
            built = temporary / "kernels.so"
            compile_source = [*command, *FLAGS, *map(str, SOURCES), "-o", str(built), *LINK]
            try:
                run([*compile_source, *openmp], temporary)
            except BuildError:
                if not openmp:
                    raise
                run(compile_source, temporary)  # the system's own OpenMP runtime
            return keep(built, folder, key)
    except OSError as error:
        raise BuildError(f"the cache of compiled kernels cannot be written: {error}; set XDG_CACHE_HOME") from error


@functools.cache
def _load() -> ctypes.CDLL | str:
    try:
        return ctypes.CDLL(str(build()))
    except (BuildError, OSError) as error:
        warnings.warn(
            f"the C++ CPU kernels are not available; falling back to slower PyTorch code "
            f"(set {SWITCH}=0 to silence this): {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return str(error)


def load() -> ctypes.CDLL:
    """The library, built if need be. Raises BuildError with the reason of ``why_not``."""
    library = _load()
    if isinstance(library, str):
        raise BuildError(library)
    return library


def why_not() -> str | None:
    """Why the library is not available, after trying to build it; None if it is loaded."""
    if os.environ.get(SWITCH) == "0":
        return f"disabled by {SWITCH}=0"
    library = _load()
    return library if isinstance(library, str) else None


# As torch.compiler.assume_constant_result, without its import of torch._dynamo, which takes seconds.
why_not._dynamo_marked_constant = True  # type: ignore[attr-defined]
