"""The paper's own tables (arXiv:2605.26099, 6.1 to 6.4) beside runs of its sizes: PAPER.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean

from sleep_lightning.evidence.scores import ALL, RunScore, split_of
from sleep_lightning.tables import markdown_table

PER_OPERATION = 200
"""Problems behind each of the paper's accuracies: 1,600, with 1 to 8 operations."""
WIDTH = 2
"""Standard errors of both figures within which they agree."""


@dataclass(frozen=True)
class Printed:
    """A figure of the paper.

    Attributes:
        sweep, level, slice: which of our rows it is compared with.
        exact_match: as printed; of a range (``above``) its lower end.
        answers: how many it was measured on; None: not stated, and read off a curve.
        above: it is only said to be above that.
    """

    sweep: str
    level: str
    slice: str
    exact_match: float
    answers: int | None = PER_OPERATION
    above: bool = False

    @property
    def shown(self) -> str:
        about = "above " if self.above else "" if self.answers else "about "
        return f"{about}{self.exact_match:.3f}"

    def tolerance(self, answers: int) -> float:
        """``WIDTH`` binomial standard errors of the difference; 0.05 more where it was read off a curve."""
        p = self.exact_match
        ours = p * (1 - p) / answers
        return WIDTH * sqrt(ours + p * (1 - p) / self.answers) if self.answers else 0.05 + WIDTH * sqrt(ours)


def _operations(sweep: str, table: dict[int, dict[int, float]]) -> Iterator[Printed]:
    for op, by_passes in table.items():
        for n, exact in by_passes.items():
            yield Printed(sweep, f"n{n}", f"op_{op}", exact)


PRINTED = (
    *(
        Printed("paper_2_rule110", f"n{n}", ALL, p, None, n > 2)
        for n, p in ((1, 0.10), (2, 0.20), (3, 0.30), (4, 0.30))
    ),
    *_operations("paper_4_gsm_jet", {6: {1: 0.742, 6: 0.812}, 8: {1: 0.351, 6: 0.388}}),
    *_operations("paper_5_gsm_ouro", {6: {1: 0.419, 2: 0.484, 4: 0.615}, 8: {1: 0.210, 2: 0.209, 4: 0.272}}),
    *_operations(
        "paper_6_gsm_ouro_sliding",
        {
            2: {1: 0.596, 2: 0.823, 4: 0.905},
            4: {1: 0.839, 2: 0.892, 4: 0.926},
            6: {1: 0.251, 2: 0.265, 4: 0.320},
            8: {1: 0.116, 2: 0.118, 4: 0.137},
        },
    ),
)
"""Depo has curves of the loss alone: its rows are shown without."""


def paper_page(rows: Sequence[RunScore], planned: int) -> str:
    """The page as Markdown: all test scores with the N of the training, beside what the paper prints."""
    own = [row for row in rows if row.test_passes == row.train_passes]
    runs = len({(row.sweep, row.level, row.seed) for row in own})
    parts = [
        "# The paper's experiments",
        "Written by `python -m sleep_lightning reproduce --paper`; no number of ours is typed by hand. Exact match on "
        f"{split_of(own)} with the final weights, mean of the seeds, beside the majority answer and the paper's "
        "figure. "
        f"They agree within {WIDTH} binomial standard errors of both (0.05 more where the paper has only a curve). "
        f"{runs} of {planned} runs are finished. What to do where a figure falls short: "
        "[the runbook](docs/paper_on_one_gpu.md).",
        *(_section(sweep, own) for sweep in sorted({row.sweep for row in own} | {one.sweep for one in PRINTED})),
    ]
    return "\n\n".join(parts) + "\n"


def _section(sweep: str, rows: Sequence[RunScore]) -> str:
    mine = [row for row in rows if row.sweep == sweep]
    printed = {(one.level, one.slice): one for one in PRINTED if one.sweep == sweep}
    keys = list(dict.fromkeys([*((row.level, row.slice) for row in mine), *printed]))
    lines = []
    for level, name in keys:
        found, target = [r for r in mine if (r.level, r.slice) == (level, name)], printed.get((level, name))
        lines.append([level, name, *_ours(found), "-" if target is None else target.shown, _verdict(found, target)])
    header = ("arm", "slice", "ours", "seeds", "majority", "the paper", "agree")
    return f"## {sweep}\n\n{markdown_table(header, lines)}"


def _ours(found: Sequence[RunScore]) -> tuple[str, str, str]:
    if not found:
        return "not run", "0", "-"
    exact, majority = (mean(getattr(row, key) for row in found) for key in ("exact_match", "majority"))
    return f"{exact:.3f}", str(len(found)), f"{majority:.3f}"


def _verdict(found: Sequence[RunScore], target: Printed | None) -> str:
    if not found or target is None:
        return "-"
    off = mean(row.exact_match for row in found) - target.exact_match
    tolerance = target.tolerance(sum(row.answers for row in found))
    if off < -tolerance:
        return f"no: {off:+.3f}, {tolerance:.3f} allowed"
    return "yes" if target.above or off <= tolerance else f"ahead: {off:+.3f}"
