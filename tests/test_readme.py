"""README and docs: their commands and programs run, and the files, links and make targets they name exist."""

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.cli import ROOT, SMALL, environment, run

FOLDERS = ("conf/", "docs/", "notebooks/", "sleep_lightning/", "tests/", "results/", "sweeps/")
PAGES = {path: path.read_text() for folder in (ROOT, ROOT / "docs") for path in sorted(folder.glob("*.md"))}
README = PAGES[ROOT / "README.md"]


def commands(page: str) -> list[list[str]]:
    lines = [line.split("  #")[0] for line in page.splitlines() if line.startswith("python -m sleep_lightning")]
    return [shlex.split(line)[3:] for line in lines]


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def slugs(page: str) -> set[str]:
    """Anchors of its headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


FIRST = ("README", "sweeps")
"""Pages whose commands are run every time; those of the others are slow."""
WITH_COMMANDS = [path for path, page in PAGES.items() if commands(page)]


@pytest.mark.process
@pytest.mark.parametrize(
    "path",
    [p if p.stem in FIRST else pytest.param(p, marks=pytest.mark.slow) for p in WITH_COMMANDS],
    ids=lambda path: path.stem,
)
def test_commands_run(path: Path, tmp_path: Path) -> None:
    """In order, in one directory for each page; runs are made small."""
    for folder in ("conf", "sweeps"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for arguments in commands(PAGES[path]):
        small = [*SMALL, "training.max_steps=3"] if arguments[0] == "fit" and "--resume" not in arguments else []
        if arguments[0] == "compare":
            arguments[2:2] = [*(key for key in SMALL if not key.startswith("task.")), "training.max_steps=3"]
            small = ["--seeds", "0"]
        done = run(tmp_path, *arguments, *small)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_there_are_commands() -> None:
    assert {"README", "get_started", "devices", "sweeps"} <= {path.stem for path in WITH_COMMANDS}
    assert sum(len(commands(page)) for page in PAGES.values()) >= 15
    assert {"fit", "test", "cost", "compare", "sweep"} <= {arguments[0] for arguments in commands(README)}


@pytest.mark.slow
@pytest.mark.process
def test_programs_of_the_first_page_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    found = programs(PAGES[ROOT / "docs" / "get_started.md"])
    assert len(found) == 2
    for program in found:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_programs_import_what_there_is() -> None:
    imported = 0
    for path, page in PAGES.items():
        for program in programs(page):
            for node in ast.walk(ast.parse(program)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sleep_lightning"):
                    module = importlib.import_module(node.module or "")
                    assert not [name.name for name in node.names if not hasattr(module, name.name)], path
                    imported += len(node.names)
    assert imported >= 6


def test_files_and_links_exist() -> None:
    for path, page in PAGES.items():
        for word in page.replace("(", " ").replace(")", " ").replace("`", " ").split():
            if word.startswith(FOLDERS) and "<" not in word and "*" not in word:
                assert (ROOT / word.rstrip(".,;:").partition("#")[0]).exists(), f"{path}: {word}"
        for link, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]+))?\)", page):
            target = path.parent / link if link else path
            assert target.exists(), f"{path}: {link}"
            assert not anchor or anchor in slugs(target.read_text()), f"{path}: {link}#{anchor}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path, page in PAGES.items():
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page, re.MULTILINE):
            assert f"\n{target}:" in makefile, f"{path}: make {target}"
    for target in ("fit", "test", "test-fast", "test-slow", "test-cluster", "reproduce", "docs"):
        assert f"make {target}" in README


def test_readme_is_short() -> None:
    assert len(README.split()) <= 1200
