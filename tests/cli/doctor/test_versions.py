"""Versions against what is required."""

from pathlib import Path

import pytest

from sleep_lightning.cli.doctor import versions
from tests.cli.doctor.rows import by_check

Patch = pytest.MonkeyPatch


def test_this_one_is_fine() -> None:
    assert {row.state for row in versions.check_versions()} == {"ok"}
    assert [row.state for row in versions.check_devices()] == ["ok"]


def test_wrong_and_missing_packages(tmp_path: Path, monkeypatch: Patch) -> None:
    folder = tmp_path / "sleep_lightning-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sleep-lightning\nVersion: 9\nRequires-Python: >=4\nProvides-Extra: dev\n"
        "Requires-Dist: rich<1\nRequires-Dist: no-such-thing>=2\nRequires-Dist: torch>=2.9\n"
        'Requires-Dist: pytest<1; extra == "dev"\nRequires-Dist: nor-this; extra == "dev"\n'
        'Requires-Dist: x; sys_platform == "no"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = by_check(versions.check_versions())
    assert rows.keys() == {"Python", "package rich", "package no-such-thing", "package pytest", "packages"}
    assert rows["Python"].state == "error" and ">=4" in rows["Python"].remedy
    assert rows["package rich"].state == rows["package no-such-thing"].state == "error"
    assert rows["package rich"].remedy == "python -m pip install 'rich<1'"
    assert rows["package pytest"].state == "warning"
    assert rows["packages"].found.startswith("1 fit: torch")
