"""A verdict follows from the scores, in every direction."""

from sleep_lightning.evidence.findings import DEPO, PASSES, STEPS, Finding, find
from tests.evidence.rows import AS_CLAIMED, HOPS, rows


def by_claim(found: list[Finding], words: str) -> Finding:
    (one,) = [finding for finding in found if words in finding.claim]
    return one


def test_orderings_as_claimed_hold() -> None:
    found = find(rows(AS_CLAIMED))
    for words in ("falls as t grows", "at the hardest t", "Depo, 1 hops", "Depo, 3 hops", "grows with the hops"):
        finding = by_claim(found, words)
        assert finding.verdict == "holds"
        assert finding.p is not None and finding.p < 0.05
    assert "t=4 0.107, t=3 0.350, t=2 0.883, t=1 0.997" in by_claim(found, "falls as t grows").figures
    assert sum("hops: more passes" in finding.claim for finding in found) == len(HOPS)


def test_pairs_are_told_apart() -> None:
    found = find(rows(AS_CLAIMED))
    longer = by_claim(found, "trained longer, at equal FLOPs")
    assert longer.verdict == "holds"
    assert longer.figures.startswith("0.922 against 0.760, difference 0.162 [")
    sliding = by_claim(found, "hard eviction beats sliding")
    assert sliding.verdict == "does not hold"
    assert sliding.figures.startswith("0.940 against 0.963, ") and "(3 seeds" in sliding.figures  # those both have
    assert by_claim(found, "needs its passes at test").verdict == "holds"
    assert by_claim(found, "deeper untied").verdict == "not run"


def test_what_runs_against_the_claim_does_not_hold() -> None:
    levels = {STEPS: dict(zip("1234", reversed(AS_CLAIMED[STEPS].values()), strict=True))}
    found = find(rows(levels))
    assert by_claim(found, "falls as t grows").verdict == "does not hold"
    assert by_claim(found, "at the hardest t").verdict == "not run"


def test_three_seeds_cannot_tell_a_pair() -> None:
    few = {DEPO: {arm: values[:3] for arm, values in AS_CLAIMED[DEPO].items()}}
    longer = by_claim(find(rows(few)), "trained longer")
    assert longer.verdict == "not shown"
    assert "(3 seeds, which cannot give less than 0.12)" in longer.figures


def test_levels_with_other_seeds_are_not_compared() -> None:
    levels = {PASSES: {"1": [0.1, 0.2], "2": [0.3]}}
    assert by_claim(find(rows(levels)), "at the hardest t").verdict == "not run"
