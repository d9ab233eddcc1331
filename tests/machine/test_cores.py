"""Cores by affinity and quota, not by machine."""

import os
from pathlib import Path

import pytest

from sleep_lightning.machine.cores import cores

UNLIMITED = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "max 100000\n"}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", UNLIMITED, 16),
        ("0::/a/b\n", UNLIMITED | {"a/b/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", UNLIMITED | {"a/cpu.max": "150000 100000\n"}, 2),  # of the group around it; not a whole core
        ("0::/a/b\n", UNLIMITED | {"a/b/cpu.max": "10000 100000\n"}, 1),
        ("0::/a/b\n", UNLIMITED | {"a/b/cpu.max": "6400000 100000\n"}, 16),
        ("4:cpu,cpuacct:/a\n1:memory:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n"}, 16),
        (
            "4:cpu,cpuacct:/a\n1:memory:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("0::/not/seen/from/this/container\n", {"cpu.max": "400000 100000\n"}, 4),
        ("", {}, 16),
    ],
)
def test_the_least_of_affinity_and_quotas(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    (tmp_path / "own").write_text(groups)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores(tmp_path, tmp_path / "own") == expected
