"""What a sweep's results stand against: scores of answers that ignore the evidence, and whether anything beats them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from sleep_lightning.accuracy import why_no_better, with_error
from sleep_lightning.formatting import score
from sleep_lightning.sweep.report.content import Report
from sleep_lightning.sweep.report.rows import Row

MAJORITY = "majority answer"
SHOWN = 5
"""Seeds that are written out."""


def baseline_facts(report: Report) -> Iterator[tuple[str, str]]:
    """Name and value of each baseline, over all runs."""
    for label, (low, high) in report.baselines.items():
        yield label, f"{low:.3f}" if high - low < 5e-4 else f"{low:.3f} to {high:.3f}"


def warning(report: Report) -> str | None:
    """One sentence if no finished trial scores above the majority answer by more than its standard error; None
    otherwise, and if that is not known."""
    if MAJORITY not in report.baselines or not report.finished:
        return None
    low, _ = report.baselines[MAJORITY]
    trial = max(report.finished, key=lambda trial: trial.result[report.value])
    best, answers = trial.result[report.value], _answers(report, trial)
    return why_no_better(best, answers, low)


def value_text(report: Report, trial: Row) -> str:
    """The value of a finished trial: a mean beside its seeds, that of one seed beside its standard error."""
    seeds = trial.by_seed.get(report.value, [])
    if len(seeds) < 2:
        return mean_text(report, trial)
    return with_seeds(trial.result[report.value], seeds, partial(report.text, report.value))


def mean_text(report: Report, trial: Row) -> str:
    """The value of a finished trial without its seeds."""
    value = trial.result[report.value]
    return report.text(report.value, value) if (n := _answers(report, trial)) is None else with_error(value, n)


def _answers(report: Report, trial: Row) -> float | None:
    return trial.answers if report.value == "exact_match" else None


def with_seeds(value: float, seeds: Sequence[float], text: Callable[[float], str] = score) -> str:
    """A mean beside its seeds: ``0.742 (mean of 0.512 0.973)``; of many, the lowest and the highest."""
    if len(seeds) < 2:
        return text(value)
    if len(seeds) <= SHOWN:
        return f"{text(value)} (mean of {' '.join(map(text, seeds))})"
    return f"{text(value)} (mean of {len(seeds)} seeds from {text(min(seeds))} to {text(max(seeds))})"
