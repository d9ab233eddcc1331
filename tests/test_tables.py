"""No number is cut, however narrow the terminal is."""

import io
import re

import pytest
from rich.console import Console

from sleep_lightning.compare.table import Row, draw_table
from sleep_lightning.tables import Column, FittingTable

SEEDS = [0, 1, 2]
ROWS = [
    Row(name, "", passes, int(passes), SEEDS, 224_776, 1200, 8_294_400, 2.1e13, 570.4, [0.312, 0.987, 0.655],
        {f"hop_{hop}": [0.9, 0.8, 0.123] for hop in (1, 2, 3, 4)}, 0.1306, 0.125, 8192)
    for name, passes in (("n1", "1"), ("more-tokens", "1"), ("reset-memory", "4"))
]  # fmt: skip


def shown(table: FittingTable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "columns"), [(30, 0), (60, 5), (80, 6), (120, 11), (200, 15)])
def test_a_comparison_fits(width: int, columns: int) -> None:
    lines = shown(draw_table(ROWS, "depo", "see comparison.md"), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert text.count("0.651 ± 0.338") == 3 and text.count("0.131") == 3  # exact match beside the majority, whole
    assert "…" not in text and "..." not in text
    head = next((line for line in lines if "┃" in line), "")
    assert max(0, head.count("┃") - 1) == columns
    assert ("left out here:" in text) == (0 < columns < 15)
    if columns == 0:
        assert "arm: reset-memory" in lines and "exact match: 0.651 ± 0.338" in lines


def test_words_are_folded_and_numbers_are_not() -> None:
    table = FittingTable("t", (Column("point", text=True), Column("cost"), Column("note", 1, text=True)))
    table.add_row("n_passes=2, window_size=24, d_model=32, max_steps=600", "10.5 TFLOP", "")
    lines = shown(table, 50)
    assert sum("10.5 TFLOP" in line for line in lines) == 1
    assert re.sub(r"[^\w=,]", "", "".join(line.split("│")[1] for line in lines if "│" in line)) == (
        "n_passes=2,window_size=24,d_model=32,max_steps=600"
    )


def test_sections_are_set_apart() -> None:
    table = FittingTable("t", (Column("", label=True), Column("x")))
    table.add_row("a", "1")
    table.add_section()
    table.add_row("b", "2")
    assert sum(line.startswith("├") for line in shown(table, 40)) == 1
