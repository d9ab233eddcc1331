"""The one process that owns a sweep: asks the study for points, trains, watches and prunes them, tells the results.

Whatever is killed, and when: a trial is told once, after the results of its runs are on disk; a trial that was running
is resumed from its checkpoint, or its surviving process is adopted; nothing is trained twice.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.config import Override
from sleep_lightning.redaction import redact
from sleep_lightning.runs.damage import reading
from sleep_lightning.runs.infrastructure import Cause, Ended, Retry
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.active_runs import ActiveRun, ActiveRuns
from sleep_lightning.sweep.launchers import Launcher, LocalLauncher
from sleep_lightning.sweep.ledger import Ledger
from sleep_lightning.sweep.measures import pruner_of
from sleep_lightning.sweep.point import point_key
from sleep_lightning.sweep.pruning import Pruner
from sleep_lightning.sweep.records import Records
from sleep_lightning.sweep.reseeding import Reseeding
from sleep_lightning.sweep.results import Results
from sleep_lightning.sweep.snapshot import RunningTrial, Snapshot
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.storage import JOURNAL, REMEDY
from sleep_lightning.sweep.study import AGAIN, DIVERGED, DIVERGED_SEED, enqueued, exhausted
from sleep_lightning.sweep.trial import Trial, build_feasible, build_trial, curve_of, mark_diverged, runs_path

FAILED_IN_A_ROW = 20
"""Trials whose runs fail one after another: the fault is then not the point's, and the sweep would never end."""
INFEASIBLE_IN_A_ROW = 200
"""Consecutive infeasible or duplicate proposals after which no more points are asked for."""


@dataclass
class Supervisor:
    """Runs a sweep to the end of its budget.

    Attributes:
        sweep: its space, budget and base experiment.
        study: stores its trials.
        folder: of the sweep.
        overrides: for every run (tracking).
        events: what happened, a line each, for display.
        launcher: of the runs; None: processes of this machine.
        records: finished runs, which are taken from there and added to it.
        put_aside: trials by number that the machine failed too often, and how: the next supervisor resumes them.
    """

    sweep: Sweep
    study: optuna.Study
    folder: Path
    overrides: list[Override] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    launcher: Launcher | None = None
    records: Records | None = None
    put_aside: dict[int, Ended] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = self.sweep.spec
        self._launcher = self.launcher or LocalLauncher(runs_path(self.folder), spec.threads, spec.devices)
        self._active = ActiveRuns(self._launcher)
        self._given_up = False
        self._waiting = self.study.get_trials(states=(TrialState.RUNNING,))
        self._enqueued = len(enqueued(self.study))
        self._reseeding = Reseeding(self.sweep, self.study, self.folder, self.overrides)
        with reading(self.folder / JOURNAL, REMEDY):
            self._ledger = Ledger(self.study.get_trials(deepcopy=False))
        self._results = Results(self.study, self.sweep, self._ledger, self.events, self._reseeding.told)
        self._pruner = Pruner(pruner_of(self.sweep.spec))
        self._deadline = time.monotonic() + 3600 * (self.sweep.spec.budget.hours or float("inf"))

    def snapshot(self) -> Snapshot:
        """The sweep as of now; cheap."""
        return Snapshot(
            running=tuple(RunningTrial.of(trial, self._active.of(trial)[0]) for trial in self._active.trials()),
            ended=dict(self._ledger.counts),
            waiting=self._enqueued + len(self._waiting),
            finished=tuple(self._ledger.finished),
            ended_flops=self._ledger.flops_spent + self._reseeding.flops_spent,
            seconds_left=None if self._deadline == float("inf") else self._deadline - time.monotonic(),
        )

    def run(self, poll_seconds: float = 0.5) -> Generator[None, None, None]:
        """Train until the budget is used up; yields after every poll.

        Closing the iterator stops the running trials: they save, to be resumed by another supervisor.
        """
        try:
            while True:
                self._look_around()
                self._fill()
                yield
                if not self._active:
                    self._launcher.close()
                    return
                time.sleep(poll_seconds)
        finally:
            self._launcher.stop([one.run for one in self._active if one.at_work])

    def _look_around(self) -> None:
        for one in self._active:
            if one not in self._active:  # another seed has ended its trial
                continue
            if one.retry.at is not None:
                if one.retry.due:
                    self._active.restart(one)
                continue
            ended = one.unstarted or self._launcher.poll(one.run)
            if ended is None:
                self._prune(one)
            elif one.run.summary is not None:
                self._active.remove(one)
                self._record_run(one.run)
                self._go_on(one.trial)
            else:
                self._failed(one, ended)
        self.events += self._launcher.events
        self._launcher.events.clear()

    def _fill(self) -> None:
        while len(self._active) < self.sweep.spec.workers and (
            self._begin_another() or self._begin_beside() or self._begin_further_seed()
        ):
            pass

    def _begin_another(self) -> bool:
        """Start a trial; False if none is left to start."""
        if self._waiting:
            self._take_up(self._waiting.pop(0))
            return True
        begun = self._ledger.counted + len(self._active.trials()) + len(self.put_aside)
        if self._given_up or begun >= self.sweep.spec.budget.trials or self._out_of_budget():
            return False
        if self._results.failed_in_a_row >= FAILED_IN_A_ROW:
            self.events.append(f"stopping: {FAILED_IN_A_ROW} trials failed one after another; see the last one's log")
            self._given_up = True
            return False
        for _ in range(INFEASIBLE_IN_A_ROW):
            if exhausted(self.study, self.sweep.spec):
                return False
            if self._ask():
                return True
        self.events.append(f"stopping: {INFEASIBLE_IN_A_ROW} consecutive infeasible or duplicate proposals")
        self._given_up = True
        return False

    def _begin_beside(self) -> bool:
        """Start another seed of an active trial; not with a pruner, which may save the seeds that follow."""
        if pruner_of(self.sweep.spec) != "none":
            return False
        return any(self._active.start_next(trial) for trial in self._active.trials())

    def _begin_further_seed(self) -> bool:
        """Start another seed of a point that decides the frontier, once all trials have ended."""
        active = [trial.number for trial in self._active.trials()]
        points_left = any(not trial.reseeds for trial in self._active.trials())
        if not self.sweep.spec.reseed.seeds or points_left or self._out_of_budget():
            return False
        if (found := self._reseeding.next(active)) is None:
            return False
        trial, why = found
        seed = trial.runs[0].experiment.training.seed
        self.events.append(f"trial {trial.number}: seed {seed}; {why}")
        if self.records is not None:
            self.records.restore(trial.runs[0])
        if not self._active.start_next(trial):  # it was recorded
            self._reseeding.changed()
        return True

    def _out_of_budget(self) -> bool:
        flops = self.sweep.spec.budget.flops
        running = sum(trial.flops_spent() for trial in self._active.trials())
        spent = self._ledger.flops_spent + self._reseeding.flops_spent + running
        return time.monotonic() > self._deadline or (flops is not None and spent >= flops)

    def _ask(self) -> bool:
        """Start a new point; False if it cannot be run (it is recorded as failed, with the reason)."""
        trial = self._results.expect(self.study.ask())
        self._enqueued = len(enqueued(self.study))
        values = self.sweep.space.suggest(trial)
        running = {point_key(trial.values): trial.number for trial in self._active.trials()}
        tried = {} if AGAIN in trial.user_attrs else self._ledger.tried
        key = point_key(values)
        if (twin := tried.get(key, running.get(key))) is not None:  # the same seeds, the same result
            self._results.record(trial.number, TrialState.FAIL, infeasible=f"the same point as trial {twin}")
            return False
        return self._begin(trial.number, values)

    def _take_up(self, frozen: FrozenTrial) -> None:
        """Resume a trial whose supervisor died; a trial that was only half asked gets its other values."""
        trial = self._results.expect(optuna.trial.Trial(self.study, frozen._trial_id))
        self.events.append(f"trial {frozen.number}: resumed")
        self._begin(frozen.number, self.sweep.space.suggest(trial))

    def _begin(self, number: int, values: dict[str, Any]) -> bool:
        try:
            trial = build_feasible(self.sweep, number, values, self.folder, *self.overrides)
        except ValueError as error:
            self._results.tell(number, TrialState.FAIL, infeasible=str(error))
            return False
        self._results.note(number, values=values, train_flops=trial.train_flops)
        if self.records is not None and (restored := sum(map(self.records.restore, trial.runs))):
            self.events.append(f"trial {number}: {restored} of {len(trial.runs)} runs taken from {self.records.path}")
        for run in trial.runs:
            self._record_run(run)
        self._go_on(trial)
        return True

    def record_ended(self) -> None:
        """Add to the records what ended before without them."""
        for trial in self.study.get_trials(deepcopy=False):
            facts = trial.user_attrs
            if trial.state.is_finished() and "values" in facts:
                for run in build_trial(self.sweep, trial.number, facts["values"], self.folder).runs:
                    self._record_run(run)

    def _record_run(self, run: FitProcess) -> None:
        if self.records is None:
            return
        try:
            self.records.add(run)
        except OSError as error:  # the run itself is on disk
            self.events.append(
                f"{self.records.path} cannot be written: {error.strerror}; rerun the command to add to it"
            )

    def _go_on(self, trial: Trial) -> None:
        """Train the next seed, or tell the result after the last."""
        if trial.reseeds:
            self._reseeding.changed()
            return
        if self._active.start_next(trial) or self._active.of(trial):
            return
        self._results.finish(trial)

    def _prune(self, one: ActiveRun) -> None:
        seen = len(one.run.history), len(self._ledger.curves)
        if seen == one.judged or one.trial.reseeds:
            return
        one.judged, curve = seen, curve_of(one.run)
        answers = Accuracy.of_validation(one.run.history[-1]).answers if curve else None
        pruner = replace(self._pruner, answers=inf if answers is None else answers)
        reason = pruner.why_stop(curve, one.trial.run_flops, self._ledger.curves)
        if reason is None:
            return
        self._active.stop(one.trial)
        if one.run.summary is not None:  # it finished meanwhile
            self._record_run(one.run)
            self._go_on(one.trial)
            return
        spent = one.trial.flops_spent()
        self._results.tell(one.trial.number, TrialState.PRUNED, pruned=reason, curve=curve, flops_spent=spent)

    def _failed(self, one: ActiveRun, ended: Ended) -> None:
        """Resume from the checkpoint, up to the limit; then the trial fails, not the sweep.

        A run that has made progress since it was started is resumed at once, and so often as it does: each time is at
        least a validation nearer to its end. One that the machine failed waits for it, and uses up no retries.
        """
        further, reason = one.run.flops_spent > one.began_flops, ended.reason
        if further:
            one.failures, one.retry = 0, Retry()
        if not ended.diverged and (further or (ended.cause is None and one.failures < self.sweep.spec.retries)):
            one.failures += not further
            self.events.append(f"trial {one.trial.number}: {reason}; resumed")
            self._active.restart(one)
            return
        if ended.cause is not None:
            self._wait_or_put_aside(one, ended, ended.cause)
            return
        self._active.remove(one)
        self._active.stop(one.trial)
        if one.trial.reseeds:
            self._further_seed_failed(one, ended)
            return
        facts: dict[str, Any] = {"failed": reason, "log_tail": one.run.log_tail()}
        if ended.diverged:
            facts |= {DIVERGED: True, DIVERGED_SEED: one.run.experiment.training.seed}
        self._results.tell(one.trial.number, TrialState.FAIL, **facts, flops_spent=one.trial.flops_spent())

    def _further_seed_failed(self, one: ActiveRun, ended: Ended) -> None:
        """One that diverged is a result: it counts against its point."""
        number = one.trial.number
        if ended.diverged:
            try:
                mark_diverged(one.run.directory, redact(ended.reason), one.trial.flops_spent())
            except OSError:  # it diverges again under the next supervisor
                self._reseeding.give_up(number)
            self._reseeding.changed()
        else:
            self._reseeding.give_up(number)
        self.events.append(f"trial {number}: another seed {'diverged' if ended.diverged else 'failed'}: {ended.reason}")

    def _wait_or_put_aside(self, one: ActiveRun, ended: Ended, cause: Cause) -> None:
        """Start it again later. One that finds no memory or loses its node too often stays unfinished in the study,
        so that the next supervisor resumes it."""
        number, late = one.trial.number, time.monotonic() > self._deadline
        if not late and (seconds := one.retry.after(cause)) is not None:
            self.events.append(f"trial {number}: {ended.reason}; started again in {seconds:.3g} s")
            return
        self._active.remove(one)
        self._active.stop(one.trial)
        if one.trial.reseeds:
            self._reseeding.give_up(number)
        else:
            self.put_aside[number] = ended
            self._results.failed_in_a_row += 1
        self.events.append(f"trial {number}: {ended.reason}; put aside, to be resumed by the next sweep")
