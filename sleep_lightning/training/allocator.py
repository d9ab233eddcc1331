"""When the C library hands freed memory back. A setting of the process, so chosen once, by the command."""

import ctypes
import platform

from sleep_lightning.sleep import Checkpoint

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
NEVER = -1  # the largest size_t
LARGE = 64 << 10  # bytes


def tune_allocator(mode: str, checkpointing: Checkpoint) -> str:
    """Tune glibc's malloc to how a training step allocates, and say in words what it does.

    Without checkpointing a step allocates the same blocks as the one before: what is freed is kept, or every step
    faults gigabytes back in page by page. With checkpointing small blocks that stay lie between large ones that don't:
    large blocks get mappings of their own, or the peak would be three times what is alive.

    Args:
        mode: ``auto``, or ``libc`` to change nothing.
        checkpointing: the policy of the training step.
    """
    if mode == "libc" or platform.libc_ver()[0] != "glibc":
        return "as the C library does"
    mallopt = ctypes.CDLL(None).mallopt
    if checkpointing == "none":
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_MAX, 0)
        return "keeps freed memory"
    mallopt(M_MMAP_THRESHOLD, LARGE)
    return "returns freed memory"
