"""The paper's figures beside made-up scores."""

import pytest

from sleep_lightning.evidence.paper import PRINTED, Printed, paper_page
from sleep_lightning.evidence.scores import RunScore
from tests.cli.cli import ROOT
from tests.evidence.rows import row

RING, SLIDING = "paper_2_rule110", "paper_6_gsm_ouro_sliding"


def lines(rows: list[RunScore], sweep: str) -> dict[tuple[str, str], list[str]]:
    section = paper_page(rows, 10).split(f"## {sweep}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()[3:] if line]
    return {(one[0], one[1]): one[2:] for one in cells}


def test_figures_agree_within_the_errors_of_both() -> None:
    scores = [row(RING, "n4", 0, 0.41), row(RING, "n1", 0, 0.10), row(SLIDING, "n4", 0, 0.90, "op_2")]
    scores += [row(SLIDING, "n4", 0, 0.20, "op_6")]
    found = lines(scores, RING)
    assert found["n4", "all"] == ["0.410", "1", "0.100", "above 0.300", "yes"]
    assert found["n1", "all"] == ["0.100", "1", "0.100", "about 0.100", "yes"]
    assert found["n2", "all"] == ["not run", "0", "-", "about 0.200", "-"]
    sliding = lines(scores, SLIDING)
    assert sliding["n4", "op_2"][-2:] == ["0.905", "yes"]
    assert sliding["n4", "op_6"][-1] == "no: -0.120, 0.072 allowed"
    assert "2 of 10 runs are finished" in paper_page([row(RING, "n4", 0, 0.4), row(RING, "n4", 1, 0.4)], 10)


def test_a_better_score_is_ahead_and_other_passes_at_test_do_not_count() -> None:
    found = lines([row(RING, "n2", 0, 0.5), row(RING, "n2", 0, 0.1, test_passes=8)], RING)
    assert found["n2", "all"][0] == "0.500" and found["n2", "all"][-1] == "ahead: +0.300"


def test_the_tolerance_is_two_standard_errors_of_the_difference() -> None:
    assert Printed("s", "n1", "op_2", 0.5, answers=200).tolerance(200) == pytest.approx(2 * (0.5 / 200) ** 0.5)


def test_every_figure_of_a_shipped_sweep_is_of_one_of_its_points() -> None:
    shipped = {path.stem: path.read_text() for path in (ROOT / "sweeps").glob("paper_*.yaml")}
    assert {"paper_2_rule110", "paper_3_depo"} <= set(shipped)
    for one in PRINTED:
        assert one.sweep not in shipped or f"{one.level}" in shipped[one.sweep], one
