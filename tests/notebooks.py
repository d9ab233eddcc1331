"""Runs notebooks from top to bottom, as a reader does: ``python -m tests.notebooks notebooks/*.ipynb`` saves them."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.cli.cli import ROOT

MINUTES = 15
"""Limit of a cell: a notebook takes at most three minutes on two quiet cores, and machines are shared."""


def executed(notebook: Path) -> NotebookNode:
    """The notebook with the outputs of a fresh kernel in an empty directory. Raises CellExecutionError if one fails."""
    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": folder}
        environment["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, with the place where it is installed
        client = NotebookClient(
            content,
            timeout=60 * MINUTES,
            startup_timeout=60 * MINUTES,
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment)
    content.metadata = {"kernelspec": content.metadata["kernelspec"], "language_info": {"name": "python"}}
    return content


if __name__ == "__main__":
    for name in sys.argv[1:]:
        nbformat.write(executed(Path(name)), name)
        print(name)
