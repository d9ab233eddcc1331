import platform
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's"),
]

FAULTS = """
import resource, sys, torch
from sleep_lightning.training.runtime.malloc import tune_allocator
print(tune_allocator(sys.argv[1]))
def step():
    return [torch.ones(1 << 20) for _ in range(20)]
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

PEAK = """
import resource, sys, torch
from sleep_lightning.training.runtime.malloc import tune_allocator
print(tune_allocator(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = []
for i in range(60):  # a pass: what it computes with, and the little that it leaves
    large = [torch.ones((4 + j) << 18) for j in range(4)]
    kept.append(torch.ones(1 << 17))
    del large
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def run(code: str, mode: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True)
    words, number = done.stdout.splitlines()
    return words, int(number)


def test_a_step_finds_the_memory_of_the_one_before() -> None:
    """80 MB a step: 20,000 pages to fault in if they were handed back."""
    words, faults = run(FAULTS, "keep")
    assert words == "keeps freed memory"
    assert faults < 2_000


@pytest.mark.slow
def test_if_memory_is_returned_the_peak_is_what_is_alive() -> None:
    """31 MB stay and 22 MB come and go."""
    words, kilobytes = run(PEAK, "return")
    assert words == "returns freed memory"
    assert kilobytes < 1.15 * 53 * 1024


@pytest.mark.slow
def test_the_c_library_is_left_alone_if_asked() -> None:
    assert run(FAULTS, "libc")[0] == "as the C library does"
