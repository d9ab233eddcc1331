"""The control groups (versions 1 and 2) by which a container or a scheduler limits this process."""

from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def groups(root: Path = ROOT, own: Path = OWN) -> Iterator[Path]:
    """Folders of the groups this process is in, each followed by those around it; none outside Linux."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = root / controllers if controllers else root
        group = top / path.lstrip("/")  # a container's own group may be the root it sees
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))
