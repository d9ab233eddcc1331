"""The one process that owns a sweep: asks for points, trains them, watches, stops and tells.

Whatever is killed, and when: a trial is told once, when its runs' results lie on disk; a trial that was running is
taken up again from its checkpoint, or its still living process is adopted; nothing is trained twice.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sleep_lightning.fit_process import FitProcess
from sleep_lightning.sweep.launch import Launcher, LocalLauncher
from sleep_lightning.sweep.ledger import Ledger, point_key
from sleep_lightning.sweep.pruning import Pruner
from sleep_lightning.sweep.snapshot import RunningTrial, Snapshot
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.study import exhausted
from sleep_lightning.sweep.trial import Trial, build_trial, curve_of, mean_curve, runs_path

INFEASIBLE_IN_A_ROW = 200
"""Proposals that cannot be run, one after another, after which the space is given up."""


@dataclass
class _Slot:
    """A trial that is being trained.

    Attributes:
        trial: the trial.
        run: which of its runs is at work.
        began_flops: what the run had taken when it was last started.
        failures: how often it has failed without getting further.
        judged: validations it had, and finished trials there were, when it was last judged whether to stop it.
    """

    trial: Trial
    run: FitProcess
    began_flops: float
    failures: int = 0
    judged: tuple[int, int] = (0, 0)


@dataclass
class Supervisor:
    """Runs a sweep to the end of its budget.

    Attributes:
        sweep: what is searched.
        study: where trials are kept.
        folder: of the sweep.
        overrides: for every run (tracking).
        events: what happened, a line each, for who prints them.
        launcher: of the runs; None: they are processes of this machine.
    """

    sweep: Sweep
    study: optuna.Study
    folder: Path
    overrides: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    launcher: Launcher | None = None

    def __post_init__(self) -> None:
        spec = self.sweep.spec
        self._launcher = self.launcher or LocalLauncher(runs_path(self.folder), spec.threads, spec.devices)
        self._slots: list[_Slot] = []
        self._given_up = False
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._waiting = self.study.get_trials(states=(TrialState.RUNNING,))
        self._enqueued = self._count_enqueued()
        self._ledger = Ledger(self.study.get_trials(deepcopy=False))
        self._pruner = Pruner(self.sweep.spec.pruner)
        self._deadline = time.monotonic() + 3600 * (self.sweep.spec.budget.hours or float("inf"))

    def snapshot(self) -> Snapshot:
        """The sweep as of now; cheap."""
        return Snapshot(
            running=tuple(RunningTrial.of(slot.trial, slot.run) for slot in self._slots),
            ended=dict(self._ledger.counts),
            waiting=self._enqueued + len(self._waiting),
            finished=tuple(self._ledger.finished),
            ended_flops=self._ledger.flops_spent,
            seconds_left=None if self._deadline == float("inf") else self._deadline - time.monotonic(),
        )

    def run(self, poll_seconds: float = 0.5) -> Generator[None, None, None]:
        """Train until the budget is used up; yields after every look around.

        Closing the iterator ends the running trials: they save, and stay to be taken up again.
        """
        try:
            while True:
                self._look_around()
                self._fill()
                yield
                if not self._slots:
                    self._launcher.close()
                    return
                time.sleep(poll_seconds)
        finally:
            self._launcher.stop([slot.run for slot in self._slots])

    def _look_around(self) -> None:
        for slot in list(self._slots):
            ended = self._launcher.poll(slot.run)
            if ended is None:
                self._prune(slot)
            elif slot.run.summary is not None:
                self._slots.remove(slot)
                self._go_on(slot.trial)
            else:
                self._failed(slot, ended)
        self.events += self._launcher.events
        self._launcher.events.clear()

    def _fill(self) -> None:
        spec, refused = self.sweep.spec, 0
        while len(self._slots) < spec.workers:
            if self._waiting:
                self._take_up(self._waiting.pop(0))
                continue
            if self._ledger.counted + len(self._slots) >= spec.budget.trials or self._out_of_budget():
                return
            if self._given_up or exhausted(self.study, spec):
                return
            if refused >= INFEASIBLE_IN_A_ROW:
                self.events.append(f"{refused} proposals in a row cannot be run, or were; the space is given up")
                self._given_up = True
                return
            refused = 0 if self._ask() else refused + 1

    def _out_of_budget(self) -> bool:
        flops = self.sweep.spec.budget.flops
        running = sum(slot.trial.flops_spent() for slot in self._slots)
        return time.monotonic() > self._deadline or (flops is not None and self._ledger.flops_spent + running >= flops)

    def _ask(self) -> bool:
        """A new point; False if it cannot be run (it is told as failed, with the reason)."""
        trial = self._asked_now(self.study.ask())
        self._enqueued = self._count_enqueued()
        values = self.sweep.space.suggest(trial)
        running = {point_key(slot.trial.values): slot.trial.number for slot in self._slots}
        if (
            twin := (running | self._ledger.tried).get(point_key(values))
        ) is not None:  # the same seeds, the same result
            self._record(trial.number, TrialState.FAIL, None, infeasible=f"the same point as trial {twin}")
            return False
        return self._begin(trial.number, values)

    def _take_up(self, frozen: FrozenTrial) -> None:
        """A trial that was running when its supervisor ended; one killed while it was asked gets its other values."""
        trial = self._asked_now(optuna.trial.Trial(self.study, frozen._trial_id))
        self.events.append(f"trial {frozen.number}: taken up again")
        self._begin(frozen.number, self.sweep.space.suggest(trial))

    def _asked_now(self, trial: optuna.trial.Trial) -> optuna.trial.Trial:
        self._asked[trial.number] = trial
        return trial

    def _begin(self, number: int, values: dict[str, Any]) -> bool:
        try:
            trial = build_trial(self.sweep, number, values, self.folder, *self.overrides)
        except ValueError as error:
            self._tell(number, TrialState.FAIL, infeasible=str(error))
            return False
        self._note(number, values=values, train_flops=trial.train_flops)
        self._go_on(trial)
        return True

    def _go_on(self, trial: Trial) -> None:
        """Train the next seed, or tell the result if there is none."""
        run = trial.next_run()
        if run is not None:
            self._launcher.submit(run)
            self._slots.append(_Slot(trial, run, run.flops_spent))
            return
        result = trial.result()
        values = [result[name] for name in self.sweep.spec.objectives]
        broken = [f"{name} is {result[name]}" for name in self.sweep.spec.objectives if not isfinite(result[name])]
        if broken:  # Optuna takes no NaN, and nothing can be compared with one
            self._tell(trial.number, TrialState.FAIL, failed=broken[0], flops_spent=trial.flops_spent())
            return
        self._tell(
            trial.number,
            TrialState.COMPLETE,
            values,
            result=result,
            exact_match_by_seed=trial.spread(),
            curve=mean_curve(trial.runs),
            flops_spent=trial.flops_spent(),
        )

    def _prune(self, slot: _Slot) -> None:
        seen = len(slot.run.history), len(self._ledger.curves)
        if seen == slot.judged:
            return
        slot.judged, curve = seen, curve_of(slot.run)
        reason = self._pruner.why_stop(curve, slot.trial.run_flops, self._ledger.curves)
        if reason is None:
            return
        self._launcher.stop([slot.run])
        self._slots.remove(slot)
        if slot.run.summary is not None:  # it finished while it was being judged
            self._go_on(slot.trial)
            return
        self._tell(
            slot.trial.number, TrialState.PRUNED, pruned=reason, curve=curve, flops_spent=slot.trial.flops_spent()
        )

    def _failed(self, slot: _Slot, reason: str) -> None:
        """Retry from the checkpoint, up to the limit; then the trial has failed, not the sweep.

        One that got further since it was started is tried again in any case: it was stopped from outside, or its
        node or its time was lost, and each such retry is at least a validation nearer to its end.
        """
        further = slot.run.flops_spent > slot.began_flops
        if further or slot.failures < self.sweep.spec.retries:
            slot.failures = 0 if further else slot.failures + 1
            self.events.append(f"trial {slot.trial.number}: {reason}; tried again")
            slot.began_flops = slot.run.flops_spent
            self._launcher.submit(slot.run)
            return
        self._slots.remove(slot)
        tail, spent = slot.run.log_tail(), slot.trial.flops_spent()
        self._tell(slot.trial.number, TrialState.FAIL, failed=reason, log_tail=tail, flops_spent=spent)

    def _count_enqueued(self) -> int:
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _note(self, number: int, **facts: object) -> None:
        for key, value in facts.items():
            self._asked[number].set_user_attr(key, value)

    def _record(self, number: int, state: TrialState, values: list[float] | None, **facts: object) -> None:
        """Facts first: whoever sees the trial ended sees them too."""
        self._note(number, **facts)
        self._ledger.add(self.study.tell(number, values, state=state))

    def _tell(self, number: int, state: TrialState, values: list[float] | None = None, **facts: object) -> None:
        self._record(number, state, values, **facts)
        shown = {name: f"{v:.4g}" for name, v in zip(self.sweep.spec.objectives, values or [], strict=False)}
        reasons = [str(value) for key, value in facts.items() if key in ("infeasible", "pruned", "failed")]
        what = ", ".join([*(f"{name} {v}" for name, v in shown.items()), *reasons])
        self.events.append(f"trial {number} {state.name.lower()}: {what}")
