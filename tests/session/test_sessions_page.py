"""The code of docs/sessions.md and docs/serving.md runs as it stands, from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run(page: str) -> int:
    """Run the blocks of a page, one after the other; returns how many there are."""
    blocks, names = BLOCK.findall((DOCS / page).read_text()), dict[str, Any]()
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return len(blocks)


def test_the_code_of_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert run("sessions.md") >= 9
    said = capsys.readouterr().out
    assert "2 passes" in said and "30 tokens forgotten" in said and "{'web': 14}" in said and "half-life" in said
    assert (tmp_path / "memory.png").stat().st_size > 1000


def test_the_code_of_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("serving.md") == 1
    size, in_memory, evictions = map(int, capsys.readouterr().out.split())
    assert in_memory * size <= 10**6 < (in_memory + 1) * size and evictions > 0
    assert len(list(tmp_path.glob("*/alice/*.safetensors"))) == 20
