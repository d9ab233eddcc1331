"""How freed memory is handed back. A setting of the process, so chosen once, by the command."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> bool:
    """Let glibc keep what a step frees for the next one, instead of returning it page by page and faulting it back in.

    The peak stays what it is. Returns whether the C library can do it (glibc on Linux; others are left alone).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    never = -1  # the largest size_t
    return bool(mallopt(M_TRIM_THRESHOLD, never) and mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD))
