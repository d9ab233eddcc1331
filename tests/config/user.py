"""The user's package of ``tests/user_package``, copied to where a test wants it and forgotten after it."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "user_package"


def copy_package(folder: Path) -> Path:
    """Copy the package and its YAML files; returns where."""
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy beside an empty current directory; what is imported from it, and its place on sys.path, go afterwards."""
    before, path = set(sys.modules), list(sys.path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield copy_package(tmp_path / "project")
    sys.path[:] = path
    for name in [name for name in sys.modules if name not in before and name.partition(".")[0] in ("lab", "mine")]:
        del sys.modules[name]
    sys.path_importer_cache.pop(str(tmp_path / "project"), None)
