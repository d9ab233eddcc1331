"""MkDocs hooks: pages that have their truth elsewhere are made from it whenever the site is built.

Notebooks become pages, the root's Markdown files join ``docs/``, and the keys of the configuration come from its
dataclasses.
"""

import base64
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from sleep_lightning.cli.help import keys

ROOT = Path(__file__).parent.parent
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "RESULTS.md")
"""Files of the root that are pages of the site."""
KEYS = "<!-- keys -->"


@event_priority(100)
def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    for name in PAGES:
        files.append(File.generated(config, name, content=_from_the_root((ROOT / name).read_text())))
    for file in sorted(path for path in (ROOT / "results").iterdir() if path.is_file()):
        files.append(File.generated(config, f"results/{file.name}", content=file.read_bytes()))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, pictures = page_of(notebook)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the root's files, as GitHub needs them in ``docs/``, lead to their pages."""
    for name in PAGES:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    markdown = markdown.replace("](../results/", "](results/")
    markdown = re.sub(r"\]\(\.\./(notebooks/\w+)\.ipynb", r"](\1.md", markdown)
    return markdown.replace(KEYS, "\n".join(key_list())) if KEYS in markdown else markdown


def key_list() -> Iterator[str]:
    """Every key of an experiment: a heading for each section, an entry for each key."""
    for section, entries in groupby(keys(), lambda key: key.section):
        name, _, task = section.partition(" ")
        yield f"\n## {name}: `{task[1:-1]}`\n" if task else f"\n## {name}\n"
        for key in entries:
            yield f"`{key.name}` = `{key.default}` ({key.kind})\n:   {_literal(key.text)}\n"


def _literal(text: str) -> str:
    """Text that Markdown must leave as it is."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", text)


def page_of(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """A saved notebook as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(_headings_below_the_first(cell.source, first=not parts))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if text := output.get("text", ""):
                parts.append(f"```text\n{text.rstrip()}\n```")
            if picture := output.get("data", {}).get("image/png"):
                name = f"{notebook.stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(picture)
                parts.append(f"![Output of the cell above]({name})")
    note = f"*This page is `notebooks/{notebook.name}` as it was saved; `make notebooks` runs it again.*"
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n", pictures


def _headings_below_the_first(text: str, *, first: bool) -> str:
    """One title a page: later ones go down a level."""
    if first:
        return text if text.startswith("#") else f"# {text.strip()}"
    return re.sub(r"^# ", "## ", text, flags=re.MULTILINE)


def _from_the_root(text: str) -> str:
    """Links as seen from ``docs/``."""
    return text.replace("](docs/", "](")
