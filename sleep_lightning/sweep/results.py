"""What a study is told of its trials."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from sleep_lightning.redaction import redact
from sleep_lightning.sweep.ledger import Ledger
from sleep_lightning.sweep.measures import why_unusable
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.study import DIVERGED
from sleep_lightning.sweep.trial import Trial, mean_curve


@dataclass
class Results:
    """Tells a study how its trials end, each once.

    Attributes:
        sweep: what is judged, and by which bounds.
        ledger: gets what has ended.
        events: gets a line about each end, for display.
        told: called after each.
        failed_in_a_row: trials that have failed since the last that did not.
    """

    study: optuna.Study
    sweep: Sweep
    ledger: Ledger
    events: list[str]
    told: Callable[[], None]
    failed_in_a_row: int = 0
    _asked: dict[int, optuna.trial.Trial] = field(default_factory=dict)

    def expect(self, trial: optuna.trial.Trial) -> optuna.trial.Trial:
        """Take a trial whose facts and end will follow."""
        self._asked[trial.number] = trial
        return trial

    def note(self, number: int, **facts: object) -> None:
        """Store facts of a trial; texts come from logs and errors, and go into reports."""
        for key, value in facts.items():
            self._asked[number].set_user_attr(key, redact(value) if isinstance(value, str) else value)

    def finish(self, trial: Trial) -> None:
        """A trial whose runs are all finished."""
        result, objectives = trial.result(), list(self.sweep.spec.objectives)
        spent: dict[str, Any] = {"flops_spent": trial.flops_spent()}
        if (broken := why_unusable(result, objectives)) is not None:
            # Optuna accepts no NaN, and nothing compares with one
            self.tell(trial.number, TrialState.FAIL, failed=broken, **(spent | {DIVERGED: True}))
            return
        curve = mean_curve(trial.runs)
        if (above := self.sweep.why_excluded(result)) is not None:
            self.tell(trial.number, TrialState.PRUNED, pruned=above, curve=curve, **spent)
            return
        facts = {"result": result, "exact_match_by_seed": trial.spread(), "curve": curve}
        values, written = [result[name] for name in objectives], trial.written(objectives)
        self.tell(trial.number, TrialState.COMPLETE, values, written, **facts, **spent)

    def record(self, number: int, state: TrialState, values: list[float] | None = None, **facts: object) -> None:
        """Facts first: a reader that sees the trial ended must see them too."""
        self.note(number, **facts)
        self.ledger.add(self.study.tell(number, values, state=state))
        self.told()
        if "infeasible" not in facts:
            self.failed_in_a_row = self.failed_in_a_row + 1 if state == TrialState.FAIL else 0

    def tell(
        self, number: int, state: TrialState, values: list[float] | None = None, what: str = "", **facts: Any
    ) -> None:
        """``record``, with a line for display: what there is to say of its result, and the reason of its end."""
        self.record(number, state, values, **facts)
        reasons = [redact(str(value)) for key, value in facts.items() if key in ("infeasible", "pruned", "failed")]
        self.events.append(f"trial {number} {state.name.lower()}: {', '.join(filter(None, [what, *reasons]))}")
