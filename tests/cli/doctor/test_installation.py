"""Versions against what is demanded, torch's build, imports."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sleep_lightning.cli.doctor import installation
from tests.cli.doctor.rows import by_check, sole

Patch = pytest.MonkeyPatch


@pytest.fixture
def project(tmp_path: Path, monkeypatch: Patch) -> Callable[[str], None]:
    def write(lines: str) -> None:
        (tmp_path / "pyproject.toml").write_text(f"[project]\n{lines}\n")

    monkeypatch.setattr(installation, "PYPROJECT", tmp_path / "pyproject.toml")
    return write


def test_this_one_is_fine() -> None:
    assert sole(installation.check_python()).state == "ok"
    assert sole(installation.check_packages()).state == "ok"


def test_wrong_and_missing_packages(project: Callable[[str], None]) -> None:
    project(
        'dependencies = ["rich<1", "no-such-thing>=2", "torch>=2.9", "other; sys_platform == \'never\'"]\n'
        'optional-dependencies = { dev = ["pytest<1", "nor-this"] }'
    )
    rows = by_check(installation.check_packages())
    assert rows.keys() == {"package rich", "package no-such-thing", "package pytest", "packages"}
    assert rows["package rich"].state == rows["package no-such-thing"].state == "error"
    assert rows["package rich"].remedy == "python -m pip install 'rich<1'"
    assert rows["package pytest"].state == "warning"
    assert rows["packages"].found.startswith("1 as demanded: torch")


def test_wrong_python(project: Callable[[str], None]) -> None:
    project('requires-python = ">=4"\ndependencies = []')
    row = sole(installation.check_python())
    assert row.state == "error" and ">=4" in row.remedy


def test_without_a_checkout_the_metadata_demands(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(installation, "PYPROJECT", tmp_path / "none.toml")
    folder = tmp_path / "sleep_lightning-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sleep-lightning\nVersion: 9\nRequires-Python: >=4\nProvides-Extra: dev\n"
        'Requires-Dist: rich<1\nRequires-Dist: pytest<1; extra == "dev"\nRequires-Dist: x; sys_platform == "no"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert sole(installation.check_python()).state == "error"
    rows = by_check(installation.check_packages())
    assert {name: row.state for name, row in rows.items()} == {
        "package rich": "error",
        "package pytest": "warning",
        "packages": "ok",
    }


def test_slow_imports() -> None:
    assert sole(installation.check_imports(0.0)).state == "warning"


@pytest.mark.parametrize("built_for", [None, "12.8"])
def test_a_driver_that_torch_cannot_use(built_for: str | None, monkeypatch: Patch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    row = sole(installation.check_torch_build())
    assert row.state == "warning" and (built_for or "CPU only") in row.found


@pytest.mark.parametrize(("cuda", "state"), [(True, "warning"), (False, "ok")])
def test_gpu_kernels_without_their_packages(cuda: bool, state: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = by_check(installation.check_gpu_kernel_packages())
    assert [row.state for row in rows.values()] == [state, state]
    assert rows["triton"].found.startswith("not installed")
