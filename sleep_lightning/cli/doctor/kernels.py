"""Checks of the kernels: the C++ build, and every memory rule against its definition on the devices there are."""

import os
import subprocess
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sleep_lightning.cli.doctor.finding import Finding, State

if TYPE_CHECKING:
    import torch

    from sleep_lightning.ops import Rule

WINDOWS = (24, 128)
"""Tokens of a short and a long window: on CUDA they take different kernels."""
KEY_DIM = 32
LONGEST_CASE = 128
"""Tokens of a self test at most: the definition goes token by token."""
COMPILER = "install a C++ compiler (Debian: apt-get install g++) or set CXX; until then slower torch code runs"


def check_compiler() -> Iterator[Finding]:
    """The C++ compiler that builds the CPU kernels at their first use."""
    from sleep_lightning.ops.cpp.build import BuildError, compiler

    try:
        command = compiler()
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        yield Finding("C++ compiler", "warning", str(error), COMPILER)
    else:
        yield Finding("C++ compiler", "ok", f"{' '.join(command)}: {done.stdout.partition(chr(10))[0]}")


def check_native() -> Iterator[Finding]:
    """Whether the C++ kernels are built and loaded; builds them if need be, which takes some seconds."""
    from sleep_lightning.ops.cpp.build import SWITCH, cache_directory, why_not

    reason = why_not()
    if reason is None:
        yield Finding("CPU kernels", "ok", f"built and loaded, kept in {cache_directory()}")
    elif os.environ.get(SWITCH) == "0":
        yield Finding("CPU kernels", "warning", reason, f"unset {SWITCH}: slower torch code runs")
    else:
        remedy = f"see the C++ compiler above; {cache_directory()} must be writable, or set XDG_CACHE_HOME"
        yield Finding("CPU kernels", "warning", f"not available, slower torch code runs: {reason}", remedy)


def check_rules() -> Iterator[Finding]:
    """A row for each memory rule and device: what ``model.backend=auto`` takes for a short and a long window."""
    import torch

    from sleep_lightning.model import MEMORY_MIXERS

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    rules = list({mixer.rule.name: mixer.rule for mixer in MEMORY_MIXERS.values()}.values())
    for device in map(torch.device, devices):
        for rule in rules:
            yield judge(rule, device, torch.float32, KEY_DIM, WINDOWS)


def judge(
    rule: "Rule",
    device: "torch.device",
    dtype: "torch.dtype",
    key_dim: int,
    windows: tuple[int, ...],
    backend: str = "auto",
) -> Finding:
    """Test the implementation a rule takes on keys of a kind against its definition: values, state, gradients."""
    name, said, wrong = f"{rule.name} on {device.type}", [], []
    state: State = "ok"
    with warnings.catch_warnings(record=True) as passed_over:  # kernels for GPUs that failed a test of their own
        warnings.simplefilter("always")
        for tokens in windows:
            taken = rule.select(_keys(tokens, key_dim, device, dtype), backend)
            fault = _fault(rule, taken, device, dtype, key_dim, tokens)
            said.append(f"{tokens} tokens: {taken}, {'agrees with the definition' if fault is None else fault}")
            if fault is not None:
                wrong.append((taken, tokens))
    reasons = list(dict.fromkeys(str(w.message) for w in passed_over if w.category is RuntimeWarning))
    remedy = ""
    if wrong:
        state, remedy = "error", _other_backend(rule, device, dtype, key_dim, *wrong[0])
    elif reasons:
        state = "warning"
        remedy = "nothing for right results; for faster ones install versions of torch and Triton made for the device"
    return Finding(name, state, "; ".join(said + reasons), remedy)


def _keys(tokens: int, key_dim: int, device: "torch.device", dtype: "torch.dtype") -> "torch.Tensor":
    import torch

    return torch.empty(1, tokens, 2, key_dim, device=device, dtype=dtype)


def _fault(
    rule: "Rule", backend: str, device: "torch.device", dtype: "torch.dtype", key_dim: int, tokens: int
) -> str | None:
    import torch

    from sleep_lightning.ops.self_test import FP32_TOLERANCE, TF32_TOLERANCE, self_test

    tolerance = TF32_TOLERANCE if backend == "fla" else FP32_TOLERANCE
    kernel, definition = rule.backends[backend].run, rule.backends["reference"].run
    case, threads = min(tokens, LONGEST_CASE), torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine threads wait for each other ten times as long as such a case takes
    try:
        return self_test(kernel, definition, device, dtype, key_dim, tokens=case, tolerance=tolerance)
    finally:
        torch.set_num_threads(threads)


def _other_backend(
    rule: "Rule", device: "torch.device", dtype: "torch.dtype", key_dim: int, wrong: str, tokens: int
) -> str:
    """The key that avoids a wrong kernel."""
    for other in rule.available(_keys(tokens, key_dim, device, dtype)):
        if other != wrong and _fault(rule, other, device, dtype, key_dim, tokens) is None:
            return f"model.backend={other}, which agrees; {wrong} must not be used here"
    return "no implementation agrees here: install torch again, then check the machine's memory"
