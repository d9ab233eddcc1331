"""Checks of the kernels: the C++ build, and every memory rule against its definition on the devices there are."""

import warnings
from collections.abc import Iterator

import torch

from sleep_lightning.cli.doctor.finding import Finding, State
from sleep_lightning.config import Experiment
from sleep_lightning.machine.private import cache_directory
from sleep_lightning.model import MEMORY_MIXERS, ModelConfig
from sleep_lightning.ops import Rule
from sleep_lightning.ops.cpp.build import SWITCH, why_not
from sleep_lightning.ops.self_test import FP32_TOLERANCE, TF32_TOLERANCE, self_test
from sleep_lightning.training.runtime.environment import check_device

WINDOWS = (24, 128)
"""Tokens of a short and a long window: on CUDA they take different kernels."""
KEY_DIM = 32
LONGEST_CASE = 128
"""Tokens of a self test at most: the definition is computed token by token."""
COMPILER = (
    "install a C++ compiler (Debian: apt-get install g++) or set CXX; its cache must be writable (XDG_CACHE_HOME)"
)
FASTER = "results are right; for faster ones install versions of torch and Triton built for the device"


def check_native() -> Iterator[Finding]:
    """Whether the C++ kernels are built and loaded; builds them if need be, which takes some seconds."""
    if (reason := why_not()) is None:
        yield Finding("CPU kernels", "ok", f"built and loaded, cached in {cache_directory()}")
    else:
        remedy = f"unset {SWITCH}" if SWITCH in reason else COMPILER
        yield Finding("CPU kernels", "warning", f"not available, slower torch code runs: {reason}", remedy)


def check_rules(experiment: Experiment | None = None) -> Iterator[Finding]:
    """A row for each memory rule and device; of an experiment, for its rules with its device, precision and window."""
    if experiment is None:
        rules = {mixer.rule.name: mixer.rule for mixer in MEMORY_MIXERS.values()}
        for device in map(torch.device, ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]):
            for rule in rules.values():
                yield judge(rule, device, torch.float32, KEY_DIM, WINDOWS)
    elif isinstance(m := experiment.model, ModelConfig):  # a plug-in tests its own kernels
        dtype = torch.bfloat16 if experiment.training.precision == "bf16" else torch.float32
        device, windows = check_device(experiment), (experiment.sleep.window_size,)
        for rule in experiment.memory_rules:
            yield judge(rule, device, dtype, m.key_dim_per_head, windows, m.backend, "experiment: ")


def judge(
    rule: Rule,
    device: torch.device,
    dtype: torch.dtype,
    key_dim: int,
    windows: tuple[int, ...],
    backend: str = "auto",
    prefix: str = "",
) -> Finding:
    """Test the backend a rule selects for such keys against its definition: values, state, gradients."""
    name, lines, wrong = f"{prefix}{rule.name} on {device.type}", [], ""
    with warnings.catch_warnings(record=True) as caught:  # GPU kernels that failed a test of their own
        warnings.simplefilter("always")
        for tokens in windows:
            keys = torch.empty(1, tokens, 2, key_dim, device=device, dtype=dtype)
            selected = rule.select(keys, backend)
            fault = _fault(rule, selected, keys)
            lines.append(f"{tokens} tokens: {selected}, {fault or 'agrees with the definition'}")
            if fault is not None and not wrong:
                other = next((b for b in rule.available(keys) if b != selected and _fault(rule, b, keys) is None), None)
                wrong = f"model.backend={other}, which agrees; {selected} must not be used here"
                wrong = wrong if other else "no backend agrees here: install torch again, then check the memory"
    lines[-1] += "" if dtype == torch.float32 else " (bf16)"
    reasons = list(dict.fromkeys(str(w.message) for w in caught if w.category is RuntimeWarning))
    state: State = "error" if wrong else "warning" if reasons else "ok"
    remedy = wrong or (FASTER if reasons else "")
    return Finding(name, state, "; ".join(lines + reasons), remedy)


def _fault(rule: Rule, backend: str, keys: torch.Tensor) -> str | None:
    tolerance, threads = TF32_TOLERANCE if backend == "fla" else FP32_TOLERANCE, torch.get_num_threads()
    kernel, definition, tokens = rule.backends[backend].run, rule.backends["reference"].run, keys.shape[1]
    torch.set_num_threads(1)  # on a busy machine threads wait for each other ten times as long as such a case takes
    try:
        case = min(tokens, LONGEST_CASE)
        return self_test(kernel, definition, keys.device, keys.dtype, keys.shape[-1], tokens=case, tolerance=tolerance)
    finally:
        torch.set_num_threads(threads)
