"""The recorded search replayed with other tools: Syne Tune's MO-ASHA as the pruner, Optuna's samplers as the order.

``python -m tests.sweep.replay_others``; MO-ASHA needs ``pip install syne-tune``, which the project does not depend on.
"""

import importlib.util
import json
import random
import warnings
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import numpy as np
import optuna

from sleep_lightning.frontier import Point, hypervolume
from sleep_lightning.sweep.pruning import Curve, Pruner
from tests.sweep.pruning_replay import Replay, replay
from tests.sweep.recorded import ANSWERS, FILE, recorded

ORDERS, SAMPLER_SEEDS = 200, 20
KEYS = ("n_passes", "grad_passes", "window_size", "d_model", "max_steps")


class MoAsha(Pruner):
    """Syne Tune's decisions: exact match and the FLOPs of the whole run, compared at equal shares of a run.

    Args:
        curves: of all trials, told apart by their first validation.
        grace: share of a run before the first decision.
        factor: 1 of so many goes on at each rung.
    """

    def __init__(self, curves: Sequence[Curve], grace: float, factor: float) -> None:
        super().__init__("median")
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        self._scheduler = MOASHA(
            {},
            ["miss", "flops"],
            time_attr="percent",
            max_t=101,
            grace_period=round(100 * grace),
            reduction_factor=factor,
        )
        self._trials = {curve[0]: Trial(i, {}, None) for i, curve in enumerate(curves)}  # type: ignore[arg-type]
        for trial in self._trials.values():
            self._scheduler.on_trial_add(trial)

    def why_stop(self, curve: Curve, run_flops: float, finished: Sequence[Curve]) -> str | None:
        now = {"miss": 1 - curve[-1].value, "flops": run_flops, "percent": int(100 * curve[-1].cost / run_flops)}
        return "MO-ASHA" if self._scheduler.on_trial_result(self._trials[curve[0]], now) == "STOP" else None


def pruners(curves: list[list[Point]]) -> None:
    """FLOPs saved, hypervolume and best value lost, two trials at a time, means over random orders."""
    n = ANSWERS["depo"]
    kinds: dict[str, Callable[[], Pruner]] = {
        "frontier (default)": lambda: Pruner(answers=n),
        "median": lambda: Pruner("median", answers=n),
        "frontier, without noise": Pruner,
        "median, without noise": lambda: Pruner("median"),
    }
    if importlib.util.find_spec("syne_tune") is None:
        print("MO-ASHA is left out: pip install syne-tune")
    else:
        for grace, factor in ((0.1, 3), (0.3, 3), (0.3, 2), (0.5, 2)):
            name = f"MO-ASHA, from {grace:.0%} on, 1 of {factor}"
            kinds[name] = lambda grace=grace, factor=factor: MoAsha(curves, grace, factor)  # type: ignore[misc]
    for name, kind in kinds.items():
        dice = random.Random(0)
        found: list[Replay] = [
            replay(curves, dice.sample(range(len(curves)), len(curves)), kind(), workers=2) for _ in range(ORDERS)
        ]
        saved, lost, best = (
            mean(getattr(r, key) for r in found) for key in ("flops_saved", "hypervolume_lost", "best_lost")
        )
        print(f"{name:32} saved {saved:.1%}, hypervolume lost {lost:.2%}, best exact match lost {best:.3f}")


def samplers(curves: list[list[Point]], points: list[dict[str, float]]) -> None:
    """FLOPs until the frontier has 95% of the hypervolume of all points.

    A sampler's proposal is rounded to the nearest recorded point that was not tried yet.
    """
    table = np.array([[point[key] for key in KEYS] for point in points])
    low, high = table.min(0), table.max(0)
    unit = (table - low) / np.maximum(high - low, 1e-9)
    ends = [curve[-1] for curve in curves]
    reference = Point(max(end.cost for end in ends), 0.0)
    whole = hypervolume(ends, reference)
    kinds: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
        "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    }
    for name, kind in kinds.items():
        spent = []
        for seed in range(SAMPLER_SEEDS):
            study = optuna.create_study(directions=["maximize", "minimize"], sampler=kind(seed))
            left, cost = list(range(len(ends))), 0.0
            done: list[Point] = []
            while left and hypervolume(done, reference) < 0.95 * whole:
                trial = study.ask()
                asked = np.array([trial.suggest_float(key, 0, 1) for key in KEYS])
                at = min(left, key=lambda i: float(((unit[i] - asked) ** 2).sum()))
                left.remove(at)
                done.append(ends[at])
                cost += ends[at].cost
                study.tell(trial, [ends[at].value, ends[at].cost])
            spent.append(cost / sum(end.cost for end in ends))
        print(f"{name:10} reaches 95% of the hypervolume after {mean(spent):.0%} of the FLOPs of all points")


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")
    runs: list[dict[str, Any]] = [
        r for r in json.loads(FILE.read_text()) if (r["task"], r["source"]) == ("depo", "search")
    ]
    curves = recorded("depo", "search")
    pruners(curves)
    samplers(curves, [{key: r[key] if r[key] is not None else r["n_passes"] for key in KEYS} for r in runs])


if __name__ == "__main__":
    main()
