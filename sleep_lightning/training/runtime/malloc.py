"""When the C library hands freed memory back. A setting of the process, so chosen once, by the command."""

import ctypes
import platform
from typing import Literal

Allocator = Literal["keep", "return", "libc"]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
NEVER = -1  # the largest size_t
LARGE = 64 << 10  # bytes


def tune_allocator(mode: Allocator) -> str:
    """Tune glibc's malloc to how training allocates, and say in words what it does.

    Args:
        mode: ``keep`` what a step frees for the next one, which would else fault gigabytes back in page by page.
            ``return`` large blocks at once: the process takes only what is alive (under checkpointing, half as much
            as with keep), and a step takes up to twice as long. ``libc`` changes nothing.
    """
    if mode == "libc" or platform.libc_ver()[0] != "glibc":
        return "as the C library does"
    mallopt = ctypes.CDLL(None).mallopt
    if mode == "keep":
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_MAX, 0)
        return "keeps freed memory"
    mallopt(M_MMAP_THRESHOLD, LARGE)
    return "returns freed memory"
