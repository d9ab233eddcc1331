"""A verdict follows from the scores, in every direction."""

from dataclasses import replace

import pytest

from sleep_lightning.evidence.findings import DEPO, RULE110, STEPS, Finding, find
from tests.evidence.rows import AS_CLAIMED, rows


def by_claim(found: list[Finding], words: str) -> Finding:
    (one,) = [finding for finding in found if words in finding.claim]
    return one


def test_orderings_as_claimed_hold() -> None:
    found = find(rows(AS_CLAIMED))
    for words in ("falls as t grows", "at t = 3", "Depo, 1 to 4 hops", "several hops than at one"):
        finding = by_claim(found, words)
        assert finding.verdict == "holds"
        assert finding.corrected is not None and finding.corrected < 0.05
    assert by_claim(found, "falls as t grows").figures == "t=4 0.107, t=3 0.350, t=2 0.883, t=1 0.997 (3 seeds)"


def test_pairs_are_told_apart() -> None:
    found = find(rows(AS_CLAIMED))
    longer = by_claim(found, "Depo: N = 4 beats N = 1 trained longer, at equal FLOPs")
    assert longer.verdict == "holds"
    assert longer.figures.startswith("0.922 against 0.760, difference 0.162 [")
    hidden = by_claim(found, "passes that read the embeddings again")
    assert hidden.verdict == "not shown"  # behind in every seed, but these are six, and one claim of many
    assert hidden.figures.startswith("0.900 against 0.963, ") and "ahead in 0 of 6 seeds; so few" in hidden.figures
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
    levels = {STEPS: AS_CLAIMED[STEPS] | {"1": AS_CLAIMED[STEPS]["2"], "2": AS_CLAIMED[STEPS]["1"]}}
    finding = by_claim(find(rows(levels)), "falls as t grows")
    assert finding.verdict == "holds"
    assert finding.figures.endswith("t=1 0.883, not monotonic (3 seeds)")


def test_three_seeds_cannot_tell_a_pair() -> None:
    few = {DEPO: {arm: values[:3] for arm, values in AS_CLAIMED[DEPO].items()}}
    longer = by_claim(find(rows(few)), "Depo: N = 4 beats N = 1 trained longer")
    assert longer.verdict == "not shown"
    assert longer.figures.endswith("ahead in 3 of 3 seeds; so few seeds give at best p 0.25, corrected 1")
    alike = by_claim(find(rows({DEPO: {"n4": [1.0] * 3, "more-tokens": [1.0] * 3}})), "Depo: N = 4 beats N = 1 trained")
    assert alike.figures.endswith("so few seeds give at best p 1, corrected 1")  # no p is above 1


def test_what_the_correction_takes_away_is_said() -> None:
    """Seven seeds could give p = 0.016, which the correction for all claims takes above 0.05."""
    values = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96]
    seven = {DEPO: {"n4": values, "more-tokens": [x - 0.2 for x in values]}}
    longer = by_claim(find(rows(seven)), "Depo: N = 4 beats N = 1 trained longer")
    assert longer.verdict == "not shown" and longer.p == 2 / 2**7
    assert longer.figures.endswith("ahead in 7 of 7 seeds; so few seeds give at best p 0.016, corrected 0.17")


def test_a_control_at_equal_flops_says_what_it_had() -> None:
    same = rows({DEPO: {arm: AS_CLAIMED[DEPO][arm] for arm in ("n4", "more-tokens")}})
    more = [replace(x, train_flops=2.7e12) if x.level == "more-tokens" else x for x in same]
    claim = "Depo: N = 4 beats N = 1 trained longer"
    assert by_claim(find(more), claim).figures.endswith("10 of 10 seeds, which had 1.08 times the training FLOPs")
    assert by_claim(find(same), claim).figures.endswith("10 of 10 seeds")


def test_a_seed_that_ties_cannot_tell_either() -> None:
    tied = {DEPO: {"n4": [1.0, 0.9, 0.95, 0.97, 0.99], "more-tokens": [1.0, 0.5, 0.5, 0.5, 0.5]}}
    longer = by_claim(find(rows(tied)), "Depo: N = 4 beats N = 1 trained longer")
    assert longer.verdict == "not shown"
    assert longer.figures.endswith("ahead in 4 of 5 seeds; so few seeds give at best p 0.12, corrected 1")
    assert longer.p == 0.125


def test_what_one_claim_shows_many_may_not() -> None:
    """Six seeds ahead of six: p = 2 / 2^6, which among several claims is not enough."""
    six = {DEPO: {"n4": [0.9, 0.91, 0.92, 0.93, 0.94, 0.95], "more-tokens": [0.8, 0.79, 0.78, 0.77, 0.76, 0.75]}}
    others = {RULE110: AS_CLAIMED[RULE110]}
    among = by_claim(find(rows(six | others)), "Depo: N = 4 beats N = 1 trained longer")
    assert among.p == 0.03125 and among.verdict == "not shown"
    assert among.corrected is not None and among.corrected > 0.05


@pytest.mark.parametrize("missing", ["n1", "n2", "n4"])
def test_nothing_is_said_of_an_order_while_a_level_is_missing(missing: str) -> None:
    arms = {arm: values for arm, values in AS_CLAIMED[DEPO].items() if arm != missing}
    scores = rows({DEPO: arms, RULE110: {"deeper": [0.6]}})
    assert {f.verdict for f in find(scores) if "more passes, higher accuracy" in f.claim} == {"not run"}


def test_levels_with_other_seeds_are_not_compared() -> None:
    levels = {RULE110: {"n1": [0.1, 0.2], "n2": [0.3], "n4": [0.6, 0.7]}}
    assert by_claim(find(rows(levels)), "at t = 3").verdict == "not run"
    other = [replace(x, seed=x.seed + 9) if x.level == "n2" else x for x in rows({RULE110: AS_CLAIMED[RULE110]})]
    assert by_claim(find(other), "at t = 3").verdict == "not run"
