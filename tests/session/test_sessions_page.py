"""The code of docs/sessions.md runs as it stands, from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "sessions.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    blocks, names = BLOCK.findall(PAGE.read_text()), dict[str, Any]()
    assert len(blocks) >= 9
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    said = capsys.readouterr().out
    assert "2 passes" in said and "30 tokens forgotten" in said and "{'web': 14}" in said and "half-life" in said
    assert (tmp_path / "memory.png").stat().st_size > 1000
