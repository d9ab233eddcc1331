"""Pictures on disk, whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from sleep_lightning.runs.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure of matplotlib (PNG). Raises DiskFull."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
