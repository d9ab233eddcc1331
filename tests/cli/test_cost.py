"""cost: forward and backward apart in every row, and how long a run takes here."""

import re

import pytest

from sleep_lightning.__main__ import main
from tests.cli.cli import ROOT, SMALL


def test_forward_and_backward_add_up_in_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    small = [*SMALL, "sleep.n_passes=3"]
    assert main(["cost", "--config", str(ROOT / "conf" / "rule110.yaml"), *small]) == 0
    printed = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    units = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
    shown = {
        name: [float(x.split()[0]) * units[x.split()[1].removesuffix("FLOP")] for x in columns[:2] if x]
        for name, *columns in cells
        if name
    }
    muon = shown.pop("Muon")
    assert len(muon) == 1
    passes = [shown.pop(f"pass {n}") for n in (1, 2, 3)]
    kinds = [shown.pop("sleeping windows"), shown.pop("windows with answers")]
    for column in (0, 1):
        parts = sum(row[column] for row in shown.values())
        assert sum(row[column] for row in passes) == pytest.approx(parts, rel=0.01)
        assert sum(row[column] for row in kinds) == pytest.approx(parts, rel=0.01)
    assert re.search(r"\n  time +about .+ here, at [\d.]+ ?[kMG]FLOP/s \(measured with \d+ sequences", printed)
