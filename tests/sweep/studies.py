"""Studies as a supervisor leaves them, without the training."""

import json
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.study import open_study
from tests.sweep.sweeps import small_sweep


class ToldStudy:
    """A sweep's folder in which trials are told as fast as they are made up."""

    def __init__(self, folder: Path, **options: Any) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder
        self.sweep: Sweep = small_sweep(many_points=False, **options)
        self.study = open_study(self.sweep, folder)

    def ask(self, n: int) -> optuna.trial.Trial:
        """A trial that runs."""
        self.study.enqueue_trial({"sleep.n_passes": n})
        trial = self.study.ask()
        values = self.sweep.space.suggest(trial)
        assert values["sleep.n_passes"] == n
        trial.set_user_attr("values", values)
        return trial

    def finish(self, n: int, exact: float, flops: float, seeds: list[float] | None = None, **result: float) -> None:
        """A trial with a result, and its runs' summaries."""
        trial = self.ask(n)
        seeds = seeds or [exact]
        result = {
            "exact_match": exact,
            "token_accuracy": 0.5,
            "loss": 1.0,
            "train_flops": flops,
            "wall_s": 2.0,
        } | result
        for seed, value in enumerate(seeds):
            directory = self.folder / "trials" / f"{trial.number:04d}-seed{seed}"
            directory.mkdir(parents=True)
            baselines = {
                "status": "FINISHED",
                "majority_baseline": 0.125,
                "uniform_baseline": 0.0625,
                "majority_token_baseline": 0.4,
            }
            (directory / "summary.json").write_text(json.dumps(result | baselines | {"exact_match": value}))
        total = flops * len(seeds)
        curve = [[flops / 2, exact / 2], [flops, exact]]
        facts = {"result": result, "exact_match_by_seed": seeds, "curve": curve, "flops_spent": total}
        self._tell(trial, TrialState.COMPLETE, [result[name] for name in self.sweep.spec.objectives], **facts)

    def record(self, trial: int, **facts: Any) -> None:
        """Add to the summary of a trial's first run."""
        file = self.folder / "trials" / f"{trial:04d}-seed0" / "summary.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))

    def prune(self, n: int, spent: float, whole: float) -> None:
        """A trial that was stopped."""
        facts = {"pruned": "even 0.2 would not beat 0.3", "curve": [[spent, 0.1]]}
        self._tell(self.ask(n), TrialState.PRUNED, flops_spent=spent, train_flops=whole, **facts)

    def fail(self, n: int, **facts: Any) -> None:
        """A trial without a result."""
        self._tell(self.ask(n), TrialState.FAIL, **facts)

    def _tell(
        self, trial: optuna.trial.Trial, state: TrialState, values: list[float] | None = None, **facts: Any
    ) -> None:
        for key, value in facts.items():
            trial.set_user_attr(key, value)
        self.study.tell(trial, values, state=state)
