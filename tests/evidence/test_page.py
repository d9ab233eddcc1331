"""RESULTS.md and its pictures follow from the tables alone."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sleep_lightning.evidence.data_order import DataOrder
from sleep_lightning.evidence.figures import draw_all
from sleep_lightning.evidence.findings import DEPO, RULE110, find
from sleep_lightning.evidence.page import results_page
from sleep_lightning.evidence.scores import RunScore, split_of
from sleep_lightning.evidence.tables import read_table, write_table
from sleep_lightning.evidence.throughput import Speed
from tests.evidence.rows import AS_CLAIMED, rows

SPEEDS = [Speed("passes", n, 24, 1.0 * n, 0.9 * n, 30_000 / n, 10.0 * n, 5, 2) for n in (1, 2, 4)] + [
    Speed("windows", 1, L, 216 / L, 1.0, 100.0 * L, 10.0, 5, 2) for L in (216, 96, 24)
]


def test_tables_survive_being_written(tmp_path: Path) -> None:
    scores = rows(AS_CLAIMED)
    write_table(RunScore, scores, tmp_path / "scores.csv")
    assert read_table(RunScore, tmp_path / "scores.csv") == scores
    write_table(Speed, SPEEDS, tmp_path / "speeds.csv")
    assert read_table(Speed, tmp_path / "speeds.csv") == SPEEDS
    with pytest.raises(ValueError, match="is no table of RunScore"):
        read_table(RunScore, tmp_path / "speeds.csv")


@pytest.mark.long
def test_the_page_shows_every_level_and_picture(tmp_path: Path) -> None:
    scores = rows(AS_CLAIMED)
    pictures = draw_all(scores, SPEEDS, tmp_path)
    assert sorted(pictures) == ["controls", "depo", "rule110", "throughput"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures.values())
    page = results_page(scores, find(scores), SPEEDS, [], pictures, "results", planned=0)
    for name in pictures.values():
        assert f"(results/{name})" in page
    assert "| **holds** |" in page and "| **not run** |" in page
    assert "| more-tokens | 200k | - | 2.5 TFLOP | 0.760 [0.683, 0.837] | 0.760" in page
    assert (
        "0 of 10 [0.00, 0.28] | 0.800 0.700 0.900 0.600 0.800 0.800 0.700 0.900 0.600 0.800 | 0.100 / 0.050 |" in page
    )
    assert "| Depo | 4 | 1 | 0.461 [" in page  # tested with one pass
    assert "| Rule 110, t = 3 | 4 | 1 | 0.450 [" in page
    assert "| Rule 110, t = 3 | 1 |" not in page  # only with its own
    assert "| n4 | 200k | - | 2.5 TFLOP | 0.900 [" in page  # beside its controls
    assert "| held-out loss, nats per label | 1 hop | 2 hops | 3 hops |" in page
    assert "| n4 - n1 | 0.518 [" in page
    assert "| N = 1: 0.404, 0.163, 0.066; N = 2: 0.574, " in page  # Depo by hop, beside the paper, in the order of N
    assert "| passes | 4 | 24 | 7500 | 4.00 | 3.60 |" in page


def test_no_figure_is_typed_by_hand() -> None:
    """With other scores, every line of a result is another."""
    scores = rows(AS_CLAIMED)
    other = [
        replace(
            row, exact_match=row.exact_match * 0.9, loss=0.2, majority=0.2, uniform=0.15, wall_s=90.0, tokens=77_000
        )
        for row in scores
    ]
    lines, theirs = (
        set(results_page(x, find(x), [], [], {}, "results", planned=0).splitlines()) for x in (scores, other)
    )
    results = {line for line in lines & theirs if re.search(r"\d\.\d\d\d", line)}
    assert results == set(), results


def test_what_was_not_tested_is_named_by_level_and_seeds() -> None:
    scores = rows(AS_CLAIMED)
    assert split_of(scores) == "the test split"
    some = [
        replace(x, split="validation")
        if (x.sweep, x.level, x.seed < 2) == (RULE110, "n2", True) or x.sweep == DEPO
        else x
        for x in scores
    ]
    assert split_of(some).endswith(f"other training seeds: {RULE110}: 2 of 6 seeds of n2; {DEPO}: all)")


def test_verdicts_by_what_is_held_equal() -> None:
    scores = [replace(x, memory_bytes=8192) for x in rows(AS_CLAIMED)]
    page = results_page(scores, find(scores), [], [], {}, "results", planned=0)
    section = page.partition("## At equal tokens")[2].partition("## Paper")[0]
    assert "| Depo: more passes | **holds** | N = 4 against 1: **holds** |" in section
    assert "deeper" not in section and "CPUs" not in section
    deeper = [
        replace(x, level="deeper", parameters=700_000, cpu="A" if x.seed else "B") if x.level == "re-embed" else x
        for x in scores
    ]
    page = results_page(deeper, find(deeper), [], [], {}, "results", planned=0)
    assert "it has 3.5 times the parameters" in page
    assert f"another run of the same seed: {RULE110}: deeper 1 on B and 5 on A." in page
    assert "| n4 | 200k | 8.19 kB |" in page


def test_a_score_below_the_threshold_is_not_shown_as_solved() -> None:
    scores = [replace(x, exact_match=0.9498) if (x.level, x.seed) == ("n2", 0) else x for x in rows(AS_CLAIMED)]
    page = results_page(scores, find(scores), [], [], {}, "results", planned=0)
    assert " 0.9498 " in page and "0.950 " in page  # seed 1 of N = 4 is solved


def test_intervals_are_of_possible_values() -> None:
    scores = [replace(x, loss=0.001 * (1 + 9 * (x.seed == 0))) for x in rows(AS_CLAIMED)]
    page = results_page(scores, find(scores), [], [], {}, "results", planned=0)
    assert "[-" not in page.partition("held-out loss")[2].partition("difference, seed by seed")[0]
    assert "| n4 | 0.002 [0.000, 0.004] |" in page


@pytest.mark.parametrize("left", [(), ("n1",), ("n1", "n4"), ("n2", "more-tokens")])
def test_a_page_of_unfinished_sweeps_says_what_there_is(tmp_path: Path, left: tuple[str, ...]) -> None:
    scores = rows(
        {
            DEPO: {arm: AS_CLAIMED[DEPO][arm] for arm in left},
            RULE110: {"more-tokens": AS_CLAIMED[RULE110]["more-tokens"]},
        }
    )
    page = results_page(scores, find(scores), [], [], draw_all(scores, [], tmp_path), "results", planned=40)
    assert f"**Not finished: {10 * len(left) + 6} of 40 runs**" in page
    assert page.count("Not run.") == (1 if left else 2)  # throughput, and Depo without an arm
    assert "more passes, higher accuracy | Fig. 3 (loss) | **holds**" not in page


def test_the_page_tells_whether_the_seeds_are_pairs() -> None:
    same = [DataOrder("reproduce_depo n1", 0, 2, 13, ""), DataOrder("reproduce_depo n1", 1, 2, 12, "")]
    page = results_page([], [], [], same, {}, "results", planned=0)
    assert "25 hashes of the data were compared and agree." in page
    differing = DataOrder("reproduce_depo n1", 2, 2, 1, "reproduce_depo n1 and reproduce_depo n4 saw other data")
    page = results_page([], [], [], [*same, differing], {}, "results", planned=0)
    assert "below assume: reproduce_depo n1 and reproduce_depo n4 saw other data (seed 2).**" in page
    assert "agree" not in page
    assert "nothing is paired" in results_page([], [], [], [], {}, "results", planned=0)


def test_without_runs_the_page_says_so() -> None:
    page = results_page([], find([]), [], [], {}, "results", planned=12)
    assert "**Not finished: 0 of 12 runs**" in page
    assert page.count("Not run.") == 4
    assert "**holds**" not in page
