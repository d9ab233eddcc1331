"""How many cores this process may use: by its affinity and its control groups, not by the machine."""

import math
import os
from contextlib import suppress
from pathlib import Path

from sleep_lightning.machine.cgroup import OWN, ROOT, groups


def cores(root: Path = ROOT, own: Path = OWN) -> int:
    """Cores this process may use, at least 1; a quota of one and a half counts as two."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root, own)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota(root: Path, own: Path) -> float | None:
    """The smallest quota of CPU time among the control groups, in cores; None without one."""
    quotas = []
    for folder in groups(root, own):
        with suppress(OSError, ValueError, ZeroDivisionError):  # "max": no limit
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            quotas.append(quota / period)
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (quota := int((folder / "cpu.cfs_quota_us").read_text())) > 0:  # -1: no limit
                quotas.append(quota / int((folder / "cpu.cfs_period_us").read_text()))
    return min(quotas, default=None)
