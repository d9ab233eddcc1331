import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from sleep_lightning.training.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else False)
def step():
    return [torch.ones(1 << 20) for _ in range(20)]
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_step_finds_the_memory_of_the_one_before() -> None:
    """80 MB a step: 20,000 pages to fault in if they were handed back."""
    run = [sys.executable, "-c", FAULTS]
    done, faults = subprocess.run([*run, "keep"], capture_output=True, text=True, check=True).stdout.split()
    assert done == "True"
    assert int(faults) < 2_000
    assert int(subprocess.run([*run, "no"], capture_output=True, text=True, check=True).stdout.split()[1]) > 20_000
