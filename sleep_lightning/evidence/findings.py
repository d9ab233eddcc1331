"""What the paper claims, put to the test on our runs: each finding has a verdict that follows from the figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from sleep_lightning.evidence.scores import ALL, RunScore
from sleep_lightning.evidence.statistics import difference, least_p, ordered_p

LEVEL_OF_DOUBT = 0.05
"""p above which an ordering is not called shown."""
STEPS, PASSES = "reproduce_rule110_steps", "reproduce_rule110_passes"
DEPO, CONTROLS = "reproduce_depo", "reproduce_depo_controls"
SLEEP, PLAIN = "n4", "n1"
"""Arms of the Depo sweep that the others are held against."""
HOP = "hop_"
"""What its slices begin with."""

Verdict = Literal["holds", "does not hold", "not shown", "not run"]


@dataclass(frozen=True)
class Finding:
    """A claim and what became of it.

    Attributes:
        claim: one sentence.
        source: who claims it: a section of the paper, or what the paper lacks.
        verdict: ``holds``: in the claimed direction with p < 0.05; ``not shown``: in that direction, but these seeds
            cannot tell; ``does not hold``: not in that direction; ``not run``: its runs are not there.
        figures: what it follows from.
        p: of the permutation test; None if not run.
    """

    claim: str
    source: str
    verdict: Verdict
    figures: str
    p: float | None = None


class Scores:
    """Test scores by what they stand for; exact match by seed."""

    def __init__(self, rows: Sequence[RunScore]) -> None:
        self.rows = rows

    def of(self, sweep: str, level: str, part: str = ALL, test_passes: int | None = None) -> list[float]:
        """Exact match by seed; with the N of the training unless told otherwise; empty if not run."""
        return list(self.by_seed(sweep, level, part, test_passes).values())

    def by_seed(self, sweep: str, level: str, part: str = ALL, test_passes: int | None = None) -> dict[int, float]:
        """The same with the seeds, in their order."""
        found = self.select(sweep, level, part, test_passes)
        return {row.seed: row.exact_match for row in sorted(found, key=lambda row: row.seed)}

    def select(self, sweep: str, level: str, part: str = ALL, test_passes: int | None = None) -> list[RunScore]:
        """The rows of a level, one a seed."""
        return [
            row
            for row in self.rows
            if (row.sweep, row.level, row.slice) == (sweep, level, part)
            and row.test_passes == (row.train_passes if test_passes is None else test_passes)
        ]

    def levels(self, sweep: str) -> list[str]:
        """Levels of a sweep, in its order."""
        return list(dict.fromkeys(row.level for row in self.rows if row.sweep == sweep))

    def slices(self, sweep: str) -> list[str]:
        """Numbers of hops of a sweep, fewest first."""
        return list(dict.fromkeys(row.slice for row in self.rows if row.sweep == sweep and row.slice.startswith(HOP)))


def find(rows: Sequence[RunScore]) -> list[Finding]:
    """Every claim, in the paper's order, then what the paper lacks."""
    scores = Scores(rows)
    return [*_rule110(scores), *_depo(scores), *_controls(scores)]


def _rule110(s: Scores) -> list[Finding]:
    ts = sorted(s.levels(STEPS), key=int, reverse=True)
    passes = sorted(s.levels(PASSES), key=int)
    return [
        _ordering(
            "Rule 110: N = 1 falls as t grows, at equal tokens", "Fig. 2a", {f"t={t}": s.of(STEPS, t) for t in ts}
        ),
        _ordering(
            "Rule 110 at the hardest t: more passes, more right", "Fig. 2b", {f"N={n}": s.of(PASSES, n) for n in passes}
        ),
    ]


def _depo(s: Scores) -> list[Finding]:
    arms = [arm for arm in ("n1", "n2", "n4") if arm in s.levels(DEPO)]
    found = []
    for hop in s.slices(DEPO):
        claim = f"Depo, {hop.rpartition('_')[2]} hops: more passes, more right"
        found.append(_ordering(claim, "Fig. 3", {arm.upper(): s.of(DEPO, arm, hop) for arm in arms}))
    gains = {
        f"{hop.rpartition('_')[2]} hops": [
            a - b for a, b in zip(s.of(DEPO, SLEEP, hop), s.of(DEPO, PLAIN, hop), strict=False)
        ]
        for hop in s.slices(DEPO)
    }
    claim = "Depo: what N = 4 gains over N = 1 grows with the hops"
    return [*found, _ordering(claim, "Fig. 3", gains)]


_PAIRS = (
    ("N = 4 beats N = 1 trained longer, at equal FLOPs", DEPO, "more-tokens"),
    ("N = 4 beats a deeper untied net of one pass, at equal FLOPs", CONTROLS, "deeper"),
    ("passes fed with hidden states beat passes that read the embeddings again", CONTROLS, "re-embed"),
    ("memory carried from pass to pass beats memory reset before each", CONTROLS, "reset-memory"),
    ("hard eviction beats sliding", CONTROLS, "sliding"),
)


def _controls(s: Scores) -> list[Finding]:
    lacks, ours = "not in the paper", s.by_seed(DEPO, SLEEP)
    found = [_pair(f"Depo: {claim}", lacks, ours, s.by_seed(sweep, arm)) for claim, sweep, arm in _PAIRS]
    fewer = "Depo: a model trained with N = 4 needs its passes at test (4 beat 1)"
    return [*found, _pair(fewer, lacks, ours, s.by_seed(DEPO, SLEEP, test_passes=1))]


def _ordering(claim: str, source: str, levels: dict[str, list[float]]) -> Finding:
    """Levels in the order in which they are claimed to rise."""
    complete = {name: values for name, values in levels.items() if values}
    if len(complete) < 2 or len({len(values) for values in complete.values()}) > 1:
        return Finding(claim, source, "not run", "runs are missing")
    p, values = ordered_p(list(complete.values())), list(complete.values())
    rise = sum((i - (len(values) - 1) / 2) * mean(level) for i, level in enumerate(values))
    means = ", ".join(f"{name} {mean(level):.3f}" for name, level in complete.items())
    return Finding(claim, source, _verdict(rise, p), f"{means}; p = {p:.2g} ({len(values[0])} seeds)", p)


def _pair(claim: str, source: str, our_seeds: dict[int, float], their_seeds: dict[int, float]) -> Finding:
    """On the seeds that both have."""
    seeds = sorted(our_seeds.keys() & their_seeds.keys())
    if not seeds:
        return Finding(claim, source, "not run", "runs are missing")
    ours, theirs = [our_seeds[seed] for seed in seeds], [their_seeds[seed] for seed in seeds]
    p, gap = ordered_p([theirs, ours]), difference(ours, theirs)
    figures = f"{mean(ours):.3f} against {mean(theirs):.3f}, difference {gap}; p = {p:.2g} ({len(seeds)} seeds"
    least = least_p(2, len(seeds))
    figures += f", which cannot give less than {least:.2g})" if least >= LEVEL_OF_DOUBT else ")"
    return Finding(claim, source, _verdict(gap.mean, p), figures, p)


def _verdict(rise: float, p: float) -> Verdict:
    if rise <= 0:
        return "does not hold"
    return "holds" if p < LEVEL_OF_DOUBT else "not shown"
