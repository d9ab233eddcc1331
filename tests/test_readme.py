"""The commands of README and docs run, in order, in one directory; two at a time, as those on one run wait for each
other."""

import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.cli import ROOT, SMALL, run

README = (ROOT / "README.md").read_text()
FOLDERS = ("conf/", "docs/", "notebooks/", "sleep_lightning/", "tests/", "results/")
PAGES = {path: path.read_text() for folder in (ROOT, ROOT / "docs") for path in sorted(folder.glob("*.md"))}


def commands() -> list[list[str]]:
    everything = [line for page in PAGES.values() for line in page.splitlines()]
    lines = [line.split("  #")[0] for line in everything if line.startswith("python -m sleep_lightning")]
    return [shlex.split(line)[3:] for line in lines]


@pytest.mark.process
def test_commands_run(tmp_path: Path) -> None:
    for folder in ("conf", "sweeps"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    assert len(commands()) >= 6
    on_one_run = [arguments for arguments in commands() if "runs/plain" in " ".join(arguments)]
    others = [arguments for arguments in commands() if arguments not in on_one_run]
    assert len(on_one_run) >= 5 and len(others) >= 5
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_run_all, [tmp_path] * 2, [on_one_run, others]))


def _run_all(folder: Path, commands: list[list[str]]) -> None:
    for arguments in commands:
        small = [*SMALL, "training.max_steps=3"] if arguments[0] == "fit" and "--resume" not in arguments else []
        if arguments[0] == "compare":
            arguments[2:2] = [*(key for key in SMALL if not key.startswith("task.")), "training.max_steps=3"]
            small = ["--seeds", "0"]
        done = run(folder, *arguments, *small)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_files_they_name_exist() -> None:
    for path, page in PAGES.items():
        for word in page.replace("(", " ").replace(")", " ").replace("`", " ").split():
            if word.startswith(FOLDERS) and "<" not in word:
                assert (ROOT / word.rstrip(".,;:")).exists(), f"{path}: {word}"
        for link in re.findall(r"\]\(([^)#:]+)\)", page):
            assert (path.parent / link).exists(), f"{path}: {link}"
    makefile = (ROOT / "Makefile").read_text()
    for target in ("fit", "test", "test-slow", "notebooks"):
        assert f"make {target}" in README
        assert f"\n{target}:" in makefile
