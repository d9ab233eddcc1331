"""A verdict follows from the scores, in every direction."""

from dataclasses import replace

import pytest

from sleep_lightning.evidence.findings import CONTROLS, DEPO, PASSES, STEPS, Finding, find
from tests.evidence.rows import AS_CLAIMED, HOPS, rows


def by_claim(found: list[Finding], words: str) -> Finding:
    (one,) = [finding for finding in found if words in finding.claim]
    return one


def test_orderings_as_claimed_hold() -> None:
    found = find(rows(AS_CLAIMED))
    for words in ("falls as t grows", "at t = 3", "Depo, 1 hop:", "Depo, 3 hops", "several hops than at one"):
        finding = by_claim(found, words)
        assert finding.verdict == "holds"
        assert finding.corrected is not None and finding.corrected < 0.05
    assert by_claim(found, "falls as t grows").figures == "t=4 0.107, t=3 0.350, t=2 0.883, t=1 0.997 (3 seeds)"
    assert sum("more passes, higher accuracy" in finding.claim for finding in found) == len(HOPS) + 1


def test_pairs_are_told_apart() -> None:
    found = find(rows(AS_CLAIMED))
    longer = by_claim(found, "Depo: N = 4 beats N = 1 trained longer, at equal FLOPs")
    assert longer.verdict == "holds"
    assert longer.figures.startswith("0.922 against 0.760, difference 0.162 [")
    hard = by_claim(found, "beats sliding eviction")
    assert hard.verdict == "not shown"  # behind in every seed, but these are three
    assert hard.figures.startswith("0.900 against 0.963, ") and "ahead in 0 of 3 seeds; smallest" in hard.figures
    assert by_claim(found, "Depo: a model trained with N = 4 needs its passes at test").verdict == "holds"
    assert by_claim(found, "Rule 110: a model trained with N = 4 needs").figures.startswith("0.900 against 0.450, ")
    assert by_claim(found, "Rule 110: N = 4 beats N = 1 trained longer").figures.startswith("0.900 against 0.847, ")
    assert by_claim(found, "deeper untied").verdict == "not run"


def test_only_the_opposite_refutes() -> None:
    levels = {STEPS: dict(zip("1234", reversed(AS_CLAIMED[STEPS].values()), strict=True))}
    found = find(rows(levels))
    assert by_claim(found, "falls as t grows").verdict == "does not hold"
    assert by_claim(found, "at t = 3").verdict == "not run"
    for theirs in ([0.501, 0.6, 0.7, 0.5, 0.6], [0.5, 0.6, 0.7, 0.5, 0.6]):  # a hair behind, and equal
        close = {DEPO: {"n4": [0.5, 0.6, 0.7, 0.5, 0.6], "more-tokens": theirs}}
        assert by_claim(find(rows(close)), "Depo: N = 4 beats N = 1 trained longer").verdict == "not shown"


def test_a_step_against_the_trend_is_told() -> None:
    levels = {PASSES: AS_CLAIMED[PASSES] | {"3": AS_CLAIMED[PASSES]["4"], "4": AS_CLAIMED[PASSES]["3"]}}
    finding = by_claim(find(rows(levels)), "at t = 3")
    assert finding.verdict == "holds"
    assert finding.figures.endswith("N=4 0.717, not monotonic (3 seeds)")


def test_three_seeds_cannot_tell_a_pair() -> None:
    few = {DEPO: {arm: values[:3] for arm, values in AS_CLAIMED[DEPO].items()}}
    longer = by_claim(find(rows(few)), "Depo: N = 4 beats N = 1 trained longer")
    assert longer.verdict == "not shown"
    assert longer.figures.endswith("ahead in 3 of 3 seeds; smallest possible p 0.25")


def test_a_seed_that_ties_cannot_tell_either() -> None:
    tied = {DEPO: {"n4": [1.0, 0.9, 0.95, 0.97, 0.99], "more-tokens": [1.0, 0.5, 0.5, 0.5, 0.5]}}
    longer = by_claim(find(rows(tied)), "Depo: N = 4 beats N = 1 trained longer")
    assert longer.verdict == "not shown"
    assert longer.figures.endswith("ahead in 4 of 5 seeds; smallest possible p 0.12") and longer.p == 0.125


def test_what_one_claim_shows_many_may_not() -> None:
    """Six seeds ahead of six: p = 2 / 2^6, which among several claims is not enough."""
    six = {DEPO: {"n4": [0.9, 0.91, 0.92, 0.93, 0.94, 0.95], "more-tokens": [0.8, 0.79, 0.78, 0.77, 0.76, 0.75]}}
    others = {CONTROLS: {"more-tokens": [0.5, 0.6, 0.7], "sliding": [0.6, 0.6, 0.6]}, PASSES: AS_CLAIMED[PASSES]}
    among = by_claim(find(rows(six | others)), "Depo: N = 4 beats N = 1 trained longer")
    assert among.p == 0.03125 and among.verdict == "not shown"
    assert among.corrected is not None and among.corrected > 0.05


@pytest.mark.parametrize("missing", ["n1", "n2", "n4"])
def test_nothing_is_said_of_an_order_while_a_level_is_missing(missing: str) -> None:
    arms = {arm: values for arm, values in AS_CLAIMED[DEPO].items() if arm != missing}
    scores = rows({DEPO: arms, CONTROLS: AS_CLAIMED[CONTROLS]})
    assert {f.verdict for f in find(scores) if "more passes, higher accuracy" in f.claim} == {"not run"}


def test_levels_with_other_seeds_are_not_compared() -> None:
    levels = {PASSES: {"1": [0.1, 0.2], "2": [0.3], "3": [0.4, 0.5], "4": [0.6, 0.7]}}
    assert by_claim(find(rows(levels)), "at t = 3").verdict == "not run"
    other = [replace(x, seed=x.seed + 5) if x.level == "2" else x for x in rows({PASSES: AS_CLAIMED[PASSES]})]
    assert by_claim(find(other), "at t = 3").verdict == "not run"
