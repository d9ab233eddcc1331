"""How much memory this process may take, and a refusal in one sentence where that is too little to begin with."""

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sleep_lightning.machine.cgroup import OWN, ROOT, groups

ADDRESSES = 2_200_000_000
"""Bytes of address space that Python, torch, Lightning and MLflow take before a model is built. Below 1.8e9 (one
thread; measured) libraries fail to load or end in a segmentation fault."""
RESIDENT = 600_000_000
"""Bytes of them that are touched."""
LIMITS = (
    ("address space", "ulimit -v", resource.RLIMIT_AS, ADDRESSES),
    ("data", "ulimit -d", resource.RLIMIT_DATA, RESIDENT),
)
"""Name, the shell's word, its number, and what the program itself takes of it."""


def check_memory(more: int = 0, root: Path = ROOT, own: Path = OWN) -> None:
    """Raise ValueError, with what is needed, if a limit of this process is below it.

    Args:
        more: bytes besides those of the program itself.
        root, own: of the control groups.
    """
    for name, command, number, least in LIMITS:
        limit, _ = resource.getrlimit(number)
        if limit != resource.RLIM_INFINITY and limit < least + more:
            raise ValueError(
                f"the limit of {limit / 1e9:.2f} GB on this process's {name} is too low: {(least + more) / 1e9:.2f} GB "
                f"are needed; raise it ({command} unlimited) or start another shell"
            )
    group = min((limit for limit, _ in _limits(root, own)), default=None)
    if group is not None and group < RESIDENT + more:
        raise ValueError(
            f"the limit of {group / 1e9:.2f} GB on this container's or job's memory is too low: "
            f"{(RESIDENT + more) / 1e9:.2f} GB are needed; ask for more (docker run --memory, sbatch --mem)"
        )


def is_limited() -> bool:
    """Whether the address space or the data of this process has a limit."""
    return any(resource.getrlimit(number)[0] != resource.RLIM_INFINITY for _, _, number, _ in LIMITS)


def memory_left(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes a container or a scheduler leaves this process; None without a limit."""
    return min((limit - used for limit, used in _limits(root, own)), default=None)


def _limits(root: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group that has a limit."""
    for folder in groups(root, own):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # "max": no limit
                yield int((folder / limit).read_text()), int((folder / used).read_text())
