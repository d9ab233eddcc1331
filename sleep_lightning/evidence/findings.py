"""The paper's claims, tested on our runs: each finding has a verdict that follows from the scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean
from typing import Literal

from sleep_lightning.evidence.scores import ALL, RunScore
from sleep_lightning.evidence.statistics import difference, holm, least_p, two_sided_p

SIGNIFICANCE = 0.05
"""Significance level: above it an ordering is not shown."""
STEPS, RULE110, DEPO = "reproduce_rule110_steps", "reproduce_rule110", "reproduce_depo"
LACKS = "not in the paper"
SLEEP = (RULE110, "n4")
"""Runs on Rule 110 that its controls are compared with."""
DEPO_SLEEP, DEPO_PLAIN = (DEPO, "n4"), (DEPO, "n1")

WANTED = {STEPS: ("1", "2", "3", "4"), RULE110: ("n1", "n2", "n4"), DEPO: ("n1", "n2", "n4")}
"""Levels of each ordering, which is judged once all of them are there."""
PASSES = {
    RULE110: "Rule 110 at t = 3, at equal tokens: more passes, higher accuracy",
    DEPO: "Depo, 1 to 4 hops, at equal tokens: more passes, higher accuracy",
}
"""Claims on N at equal tokens."""
EQUAL_FLOPS = ", at equal FLOPs"
LONGER = {
    RULE110: f"Rule 110: N = 4 beats N = 1 trained longer{EQUAL_FLOPS}",
    DEPO: f"Depo: N = 4 beats N = 1 trained longer{EQUAL_FLOPS}",
}
"""Claims on N = 4 at equal training FLOPs."""
DEEPER = f"Rule 110: N = 4 beats a deeper untied net of one pass{EQUAL_FLOPS}"
HOP = "hop_"
"""Prefix of the slices of Depo that count hops."""

Verdict = Literal["holds", "does not hold", "not shown", "not run"]


@dataclass(frozen=True)
class Finding:
    """A claim and its verdict.

    Attributes:
        claim: one sentence.
        source: a section of the paper, or that the paper does not have it.
        verdict: ``holds``: in the claimed direction with a corrected p < 0.05; ``does not hold``: the opposite with
            p < 0.05; ``not shown``: neither, these seeds cannot decide; ``not run``: some of its runs are missing.
        figures: the scores it follows from.
        effect: how far the claimed direction goes, positive as claimed; None if not run.
        p: of the permutation test in both directions; None if not run.
        least: the smallest p that so many seeds with these ties could give.
        corrected: p, by Holm for all claims.
    """

    claim: str
    source: str
    verdict: Verdict
    figures: str
    effect: float | None = None
    p: float | None = None
    least: float = 0.0
    corrected: float | None = None


class Scores:
    """Test scores by sweep and level; exact match by seed."""

    def __init__(self, rows: Sequence[RunScore]) -> None:
        self.rows = rows

    def of(self, sweep: str, level: str, part: str = ALL, test_passes: int | None = None) -> list[float]:
        """Exact match by seed, tested with the N of the training unless ``test_passes`` is given; empty if not run."""
        return list(self.by_seed(sweep, level, part, test_passes).values())

    def by_seed(self, sweep: str, level: str, part: str = ALL, test_passes: int | None = None) -> dict[int, float]:
        """The same as a mapping from seeds, in ascending order."""
        found = self.select(sweep, level, part, test_passes)
        return {row.seed: row.exact_match for row in sorted(found, key=lambda row: row.seed)}

    def select(self, sweep: str, level: str, part: str = ALL, test_passes: int | None = None) -> list[RunScore]:
        """The rows of a level, one for each seed."""
        return [
            row
            for row in self.rows
            if (row.sweep, row.level, row.slice) == (sweep, level, part)
            and row.test_passes == (row.train_passes if test_passes is None else test_passes)
        ]

    def levels(self, sweep: str) -> list[str]:
        """Levels of a sweep: those of an ordering first, then the others in the order of their rows."""
        found = dict.fromkeys(row.level for row in self.rows if row.sweep == sweep)
        ordered = [level for level in WANTED.get(sweep, ()) if level in found]
        return ordered + [level for level in found if level not in ordered]

    def slices(self, sweep: str) -> list[str]:
        """Numbers of hops of a sweep, fewest first."""
        return list(dict.fromkeys(row.slice for row in self.rows if row.sweep == sweep and row.slice.startswith(HOP)))


def find(rows: Sequence[RunScore]) -> list[Finding]:
    """All findings: the paper's claims in its order, then those it does not make."""
    scores = Scores(rows)
    return _corrected([*_rule110(scores), *_depo(scores), *_controls(scores)])


def _corrected(found: Sequence[Finding]) -> list[Finding]:
    """With verdicts, which the correction for the number of claims decides: all of them, run or not."""
    p = [1.0 if finding.p is None else finding.p for finding in found]
    corrected = holm(p)
    result = []
    for i, finding in enumerate(found):
        if finding.p is None:
            result.append(finding)
            continue
        shown: Verdict = "holds" if (finding.effect or 0) > 0 else "does not hold"
        verdict = shown if corrected[i] < SIGNIFICANCE else "not shown"
        note = ""
        if (least := holm([*p[:i], finding.least, *p[i + 1 :]])[i]) >= SIGNIFICANCE:
            note = f"; so few seeds give at best p {finding.least:.2g}, corrected {least:.2g}"
        result.append(replace(finding, verdict=verdict, corrected=corrected[i], figures=finding.figures + note))
    return result


def _rule110(s: Scores) -> list[Finding]:
    claim = "Rule 110: N = 1 falls as t grows, at equal tokens"
    by_steps = {f"t={t}": s.by_seed(STEPS, t) for t in reversed(WANTED[STEPS])}
    return [_ordering(claim, "Fig. 2a", by_steps), _ordering(PASSES[RULE110], "Fig. 2b", _by_passes(s, RULE110))]


def _by_passes(s: Scores, sweep: str) -> dict[str, dict[int, float]]:
    return {arm.replace("n", "N="): s.by_seed(sweep, arm) for arm in WANTED[sweep]}


def _depo(s: Scores) -> list[Finding]:
    gains = {}
    for hop in s.slices(DEPO):
        ours, theirs = s.by_seed(*DEPO_SLEEP, hop), s.by_seed(*DEPO_PLAIN, hop)
        gains[hop] = {seed: ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()}
    one = gains.pop(f"{HOP}1", {})
    several = {seed: mean(gain[seed] for gain in gains.values()) for seed in one} if gains else {}
    gain = "Depo: N = 4 gains more over N = 1 at several hops than at one"
    return [
        _ordering(PASSES[DEPO], "Fig. 3 (loss)", _by_passes(s, DEPO)),
        _ordering(gain, "Fig. 3 (loss)", {"1 hop": one, "several": several}),
    ]


_PAIRS = (
    (LONGER[RULE110], LACKS, SLEEP, (RULE110, "more-tokens")),
    (DEEPER, LACKS, SLEEP, (RULE110, "deeper")),
    (
        "Rule 110: passes fed with hidden states beat passes that read the embeddings again",
        LACKS,
        SLEEP,
        (RULE110, "re-embed"),
    ),
    (
        "Rule 110: memory carried from pass to pass beats memory reset before each",
        LACKS,
        SLEEP,
        (RULE110, "reset-memory"),
    ),
    (LONGER[DEPO], LACKS, DEPO_SLEEP, (DEPO, "more-tokens")),
)
"""Claim, source, the runs claimed to be better, and those claimed to be worse."""


def _controls(s: Scores) -> list[Finding]:
    found = []
    for claim, source, better, worse in _PAIRS:
        pair = _pair(claim, source, s.by_seed(*better), s.by_seed(*worse))
        equal = claim.endswith(EQUAL_FLOPS) and pair.p is not None
        found.append(replace(pair, figures=pair.figures + _flops(s, better, worse)) if equal else pair)
    for task, level in (("Rule 110", SLEEP), ("Depo", DEPO_SLEEP)):
        claim = f"{task}: a model trained with N = 4 needs its passes at test (4 passes beat 1)"
        found.append(_pair(claim, LACKS, s.by_seed(*level), s.by_seed(*level, test_passes=1)))
    return found


def _flops(s: Scores, better: tuple[str, str], worse: tuple[str, str]) -> str:
    """What the training of a control took, if it is not the same FLOPs to 1%."""
    ours, theirs = (mean(row.train_flops for row in s.select(*level)) for level in (better, worse))
    ratio = theirs / ours
    return "" if abs(ratio - 1) < 0.01 else f", which had {ratio:.2f} times the training FLOPs"


def hop_name(part: str) -> str:
    """``hop_2`` -> ``2 hops``."""
    hops = part.removeprefix(HOP)
    return f"{hops} hop" if hops == "1" else f"{hops} hops"


def on_common_seeds(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[list[float], list[float]]:
    """The values of the seeds that both share, in the same order."""
    seeds = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def _ordering(claim: str, source: str, levels: Mapping[str, Mapping[int, float]]) -> Finding:
    """A trend over levels (exact match by seed) given in the order in which they are claimed to rise."""
    seeds = sorted(set().union(*levels.values()))
    if not seeds or any(sorted(values) != seeds for values in levels.values()):
        return Finding(claim, source, "not run", "runs are missing")
    values = [[by_seed[seed] for seed in seeds] for by_seed in levels.values()]
    means = [round(mean(level), 3) for level in values]
    shown = ", ".join(f"{name} {x:.3f}" for name, x in zip(levels, means, strict=True))
    if any(after < before for before, after in pairwise(means)):
        shown += ", not monotonic"
    shown += f" ({len(seeds)} seeds)"
    return _tested(claim, source, shown, values)


def _pair(claim: str, source: str, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Finding:
    a, b = on_common_seeds(ours, theirs)
    if not a:
        return Finding(claim, source, "not run", "runs are missing")
    ahead = sum(x > y for x, y in zip(a, b, strict=True))
    shown = f"{mean(a):.3f} against {mean(b):.3f}, difference {difference(a, b)}, ahead in {ahead} of {len(a)} seeds"
    return _tested(claim, source, shown, [b, a])


def _tested(claim: str, source: str, figures: str, levels: list[list[float]]) -> Finding:
    """The verdict is still to come: it depends on the other claims."""
    least = min(1.0, 2 * least_p(levels))
    rise = sum(i * mean(level) for i, level in enumerate(levels)) - mean(range(len(levels))) * sum(map(mean, levels))
    return Finding(claim, source, "not shown", figures, rise, two_sided_p(levels), least)
