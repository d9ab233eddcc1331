"""What a container or a scheduler leaves this process of the machine (Linux control groups, versions 1 and 2)."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_limit(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Cores the group of this process may use; None without a limit."""
    limits = []
    for folder in _groups("cpu", root, own):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            limits.append(int(quota) / int(period))  # "max": no limit
        with suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text()
            if int(quota) > 0:
                limits.append(int(quota) / int((folder / "cpu.cfs_period_us").read_text()))
    return min(limits, default=None)


def memory_left(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes the group of this process may still take; None without a limit."""
    left = []
    for folder in _groups("memory", root, own):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):
                left.append(int((folder / limit).read_text()) - int((folder / used).read_text()))
    return min(left, default=None)  # version 1 says "no limit" by a number larger than any memory


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of the groups this process is in, innermost first: each may set a limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        group = top / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))
