"""Builds and loads the C++ kernels: once per machine, at the first call, into the user's cache directory."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

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
COMPILE_SECONDS = 300


class BuildError(Exception):
    """The library could not be built or loaded; the message says why and what to do."""


def compiler() -> list[str]:
    """The C++ compiler's command: ``$CXX``, or the first of c++, g++ and clang++ on the path. Raises BuildError."""
    if command := shlex.split(os.environ.get("CXX", "")):
        return command
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    raise BuildError("no C++ compiler (c++, g++ or clang++) on the path; install one or set CXX")


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/sleep_lightning``, by default ``~/.cache/sleep_lightning``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "sleep_lightning"


def torch_openmp() -> list[str]:
    """The OpenMP runtime in torch's wheel, if any: a second thread pool would compete with torch's for the cores."""
    root = Path(torch.__file__).parent
    for directory in (root / "lib", root.parent / "torch.libs"):
        for pattern in ("libgomp*.so*", "libiomp5*.so*"):
            if found := sorted(directory.glob(pattern)):
                return [str(found[0]), f"-Wl,-rpath,{directory}"]
    return []


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        raise BuildError(f"{shlex.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _cpu() -> str:
    """What -march=native depends on: a home directory shared with another CPU must not share the library."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    features = {line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}
    return "\n".join([platform.machine(), *sorted(features)])


def build() -> Path:
    """The library for this source, compiler, CPU and torch, built if the cache has none.

    Several processes may build at once: each writes a file of its own and renames it. Raises BuildError.
    """
    command, openmp = compiler(), torch_openmp()
    parts = [
        *(path.read_text() for path in SOURCES + HEADERS),
        *FLAGS,
        *LINK,
        *openmp,
        _run([*command, "--version"]),
        _cpu(),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    library = cache_directory() / f"kernels-{key}.so"
    if library.exists():
        return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as directory:
            built = Path(directory) / library.name
            compile_source = [*command, *FLAGS, *map(str, SOURCES), "-o", str(built), *LINK]
            try:
                _run([*compile_source, *openmp])
            except BuildError:
                if not openmp:
                    raise
                _run(compile_source)  # the system's own OpenMP runtime
            built.replace(library)
    except OSError as error:
        raise BuildError(f"cannot write {library.parent}: {error}; set XDG_CACHE_HOME") from error
    return library


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
