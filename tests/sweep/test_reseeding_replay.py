"""docs/sweeps.md has the figures of the replay."""

import pytest

from tests.cli.cli import ROOT
from tests.sweep.reseeding_replay import FILES, equal_seeds, recorded, summary

PAGE = (ROOT / "docs" / "sweeps.md").read_text()


def test_ten_seeds_of_four_points_are_recorded() -> None:
    for name in FILES:
        assert [len(point.values) for point in recorded(name).values()] == [10] * 4


def test_equal_seeds_are_those_of_the_page() -> None:
    rule110, depo = map(equal_seeds, FILES)
    row = f"80% (eight), in {rule110[7]:.0%}; 90% (nine), in {rule110[8]:.0%} | 30% (three), in {depo[2]:.0%}"
    assert f"| equal seeds | {row}; 40% (four), in {depo[3]:.0%} |" in PAGE


@pytest.mark.long
@pytest.mark.parametrize(("first", "label"), [(1, "re-seeded, from one seed"), (3, "re-seeded, from three")])
def test_re_seeded_frontiers_are_those_of_the_page(first: int, label: str) -> None:
    cells = ["{:.0%}, in {:.0%}".format(*summary(name, first)) for name in FILES]
    assert f"| {label} | {cells[0]} | {cells[1]} |" in PAGE
