"""The notebooks: complete as saved, and true when they are run again."""

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.cli.cli import ROOT
from tests.notebooks import executed

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/(home|root|tmp|usr|var|opt|work|mnt|Users|private)/|[A-Z]:\\")
"""Where a file of one machine would show."""


def imports(cell: NotebookNode) -> list[ast.ImportFrom]:
    """What a cell imports from this package."""
    nodes = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.ImportFrom)]
    return [node for node in nodes if (node.module or "").startswith("sleep_lightning")]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell: NotebookNode) -> list[str]:
    """What the outputs of a cell say, pictures left out."""
    said = [output.get("text", "") for output in cell.outputs]
    data = [output.get("data", {}) for output in cell.outputs]
    return said + [text for one in data for kind, text in one.items() if kind.startswith("text/")]


def test_there_are_six() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


def test_the_fifth_needs_the_public_names_only() -> None:
    nodes = [node for cell in code_cells(nbformat.read(NOTEBOOKS[4], as_version=4)) for node in imports(cell)]
    assert {node.module for node in nodes} == {"sleep_lightning"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestSaved:
    def test_run_from_top_to_bottom_without_errors(self, path: Path) -> None:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert notebook.metadata["kernelspec"]["name"] == "python3"
        assert "widgets" not in notebook.metadata
        cells = code_cells(notebook)
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
        assert any("image/png" in output.get("data", {}) for output in outputs)
        assert cells[-1].outputs

    def test_names_no_place_on_a_machine(self, path: Path) -> None:
        for cell in nbformat.read(path, as_version=4).cells:
            said = [cell.source, *(texts(cell) if cell.cell_type == "code" else [])]
            assert not [text for text in said if ABSOLUTE_PATH.search(text)]

    def test_code_compiles_and_what_it_imports_is_there(self, path: Path) -> None:
        imported = 0
        for cell in code_cells(nbformat.read(path, as_version=4)):
            for node in imports(cell):
                module = importlib.import_module(node.module or "")
                assert not [name.name for name in node.names if not hasattr(module, name.name)]
                imported += len(node.names)
        assert imported

    def test_asserts_what_it_claims(self, path: Path) -> None:
        cells = code_cells(nbformat.read(path, as_version=4))
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cells[-1].source)))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_holds_when_run_again(path: Path) -> None:
    """The claims are assertions in the notebook's last cells; an error in any cell is raised."""
    again = code_cells(executed(path))
    assert all(cell.execution_count for cell in again)
    assert again[-1].outputs
