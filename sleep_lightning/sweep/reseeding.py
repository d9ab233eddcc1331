"""Further seeds for the points that decide the frontier, once no more points are tried."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import optuna

from sleep_lightning.config import Override
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import finished_summary
from sleep_lightning.sweep.finished_runs import REMEDY
from sleep_lightning.sweep.report.content import Report, build_report
from sleep_lightning.sweep.report.rows import Row
from sleep_lightning.sweep.settled import by_one_seed, lucky_or_undecided, next_to_seed
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.trial import Trial, build_trial, is_marked_diverged, run_path, seeds_by_trial

Seeds = Mapping[int, Sequence[int]]
"""``seeds_by_trial``."""


class Reseeding:
    """Chooses them from what lies in the sweep's folder, so that another supervisor goes on with the same."""

    def __init__(self, sweep: Sweep, study: optuna.Study, folder: Path, overrides: Sequence[Override]) -> None:
        self._sweep, self._study, self._folder, self._overrides = sweep, study, folder, overrides
        self._failed: set[int] = set()
        self._report: Report | None = None
        self._flops_spent: float | None = None

    @property
    def flops_spent(self) -> float:
        """Training FLOPs of all runs that it has asked for and that have finished or diverged."""
        if self._flops_spent is None:
            trials = self._read().trials if self._sweep.spec.reseed.seeds else ()
            self._flops_spent = sum(trial.further_flops for trial in trials)
        return self._flops_spent

    def _read(self) -> Report:
        if self._report is None:
            self._report = build_report(self._study, self._folder)
        return self._report

    def told(self) -> None:
        """A trial has ended."""
        self._report = None

    def changed(self) -> None:
        """A run that it has asked for has ended."""
        self._report = self._flops_spent = None

    def give_up(self, number: int) -> None:
        """A seed of this trial has failed for good."""
        self._failed.add(number)

    def next(self, active: Sequence[int]) -> tuple[Trial, str] | None:
        """A trial with one run, that of its next seed, and why it is in doubt, in words.

        Returns:
            None if every point is decided, has all its seeds, trains, or has failed; or the FLOPs are used up.
        """
        asked, report = self._sweep.spec.reseed, self._read()
        rows = report.finished
        costs = [t.result["train_flops"] for t in rows]
        spent = self.flops_spent + sum(cost for t, cost in zip(rows, costs, strict=True) if t.number in active)
        allowed = [
            t.number not in self._failed
            and t.number not in active
            and report.seeds(t) < asked.seeds
            and (asked.flops is None or spent + cost <= asked.flops)
            for t, cost in zip(rows, costs, strict=True)
        ]
        shares = [report.frontier_shares[t.number] for t in rows]
        seeds = seeds_by_trial(self._folder)
        begun = [ok and self._begun(t, seeds) for t, ok in zip(rows, allowed, strict=True)]
        alone = by_one_seed(report.seeded)
        if (i := next_to_seed(shares, costs, begun, asked.confidence)) is None:  # what was interrupted first
            i = lucky_or_undecided(shares, costs, allowed, alone, asked.confidence)
        if i is None:
            return None
        why = "with a single seed" if alone[i] else f"in {shares[i]:.0%} of the resamples"
        return self._trial(rows[i], seeds), f"it is on the frontier {why}"

    def _begun(self, trial: Row, seeds: Seeds) -> bool:
        return (run_path(self._folder, trial.number, self._seed(trial.number, seeds)) / "config.yaml").exists()

    def _seed(self, number: int, seeds: Seeds) -> int:
        """The first one after those of the sweep that has no result; to have diverged is one."""
        runs = {s: RunDirectory(run_path(self._folder, number, s)) for s in seeds.get(number, ())}
        done = {s for s, run in runs.items() if is_marked_diverged(run) or finished_summary(run, REMEDY) is not None}
        return next(seed for seed in count(max(self._sweep.spec.seeds) + 1) if seed not in done)

    def _trial(self, trial: Row, seeds: Seeds) -> Trial:
        once = replace(self._sweep, spec=replace(self._sweep.spec, seeds=[self._seed(trial.number, seeds)]))
        return replace(build_trial(once, trial.number, trial.values, self._folder, *self._overrides), reseeds=True)
