"""An accuracy as it is shown: with its standard error, beside what answers without the evidence score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean
from typing import Any, Self


def standard_error(share: float, answers: float) -> float:
    """Binomial standard error of a share of so many answers."""
    return sqrt(max(0.0, share * (1 - share)) / answers)


def with_error(share: float, answers: float | None) -> str:
    """``0.437 ± 0.031``: a share of so many answers; without its standard error if their number is not known."""
    return f"{share:.3f}" if answers is None else f"{share:.3f} ± {standard_error(share, answers):.3f}"


def why_no_better(best: float, answers: float | None, majority: float) -> str | None:
    """One sentence if the best of several results is not above the majority answer by more than its standard error;
    None otherwise.

    Args:
        best: share of right answers.
        answers: of which it is a share; None: not known, or a mean over seeds.
        majority: what the most frequent answer scores.
    """
    if best > majority + (0.0 if answers is None else standard_error(best, answers)):
        return None
    return f"nothing beats the majority answer: {with_error(best, answers)} at best, {majority:.3f} without evidence"


@dataclass(frozen=True)
class Accuracy:
    """Exact match of one run.

    Attributes:
        exact_match: share of the answers.
        answers: their number; None: not recorded, by an earlier version.
        majority, uniform: baselines on the same answers; None: not recorded.
    """

    exact_match: float
    answers: float | None = None
    majority: float | None = None
    uniform: float | None = None

    @classmethod
    def of_validation(cls, row: Mapping[str, float]) -> Self:
        """Of a row of a run's history."""
        return cls(row["exact_match"], *_recorded(row, "answers", "majority_exact_match", "uniform_exact_match"))

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> Self:
        """Of a run's ``summary.json``."""
        return cls(summary["exact_match"], *_recorded(summary, "answers", "majority_baseline", "uniform_baseline"))

    @classmethod
    def mean(cls, runs: Sequence["Accuracy"]) -> "Accuracy":
        """Mean over the seeds of a point. Of several, the spread over seeds counts, not the number of answers."""
        if len(runs) == 1:
            return runs[0]

        def average(values: Sequence[float | None]) -> float | None:
            known = [x for x in values if x is not None]
            return mean(known) if len(known) == len(runs) else None

        exact = mean(one.exact_match for one in runs)
        return cls(exact, None, average([one.majority for one in runs]), average([one.uniform for one in runs]))

    def __str__(self) -> str:
        """``0.437 ± 0.031 (majority 0.084, uniform 0.004)``."""
        named = {"majority": self.majority, "uniform": self.uniform}
        beside = ", ".join(f"{name} {score:.3f}" for name, score in named.items() if score is not None)
        return with_error(self.exact_match, self.answers) + (f" ({beside})" if beside else "")


def _recorded(content: Mapping[str, Any], *keys: str) -> list[float | None]:
    """Numbers that earlier versions did not record. What is none, or counts nothing, is not known."""
    found: list[float | None] = []
    for key in keys:
        value = content.get(key)
        known = isinstance(value, int | float) and (value > 0 or key != "answers")
        found.append(value if known else None)
    return found
