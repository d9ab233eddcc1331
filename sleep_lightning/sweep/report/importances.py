"""Importance of the varied keys."""

import warnings

import optuna
from optuna.trial import FrozenTrial

from sleep_lightning.sweep.study import finished

ENOUGH = 8
"""Finished trials from which importances are worth computing."""
TOP = 0.25
"""Share of the finished trials that count as the best."""


def importances(study: optuna.Study, objectives: dict[str, str]) -> dict[str, dict[str, float]]:
    """By objective, how much the best quarter of the finished trials differs from the others in each key (PED-ANOVA,
    which handles conditional keys), as shares of 1; empty with too few trials or equal results."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # it loads scikit-learn

    found: dict[str, dict[str, float]] = {}
    trials = finished(study)
    for i, (name, direction) in enumerate(objectives.items()):
        if len(trials) < ENOUGH or len({t.values[i] for t in trials}) < 2:
            continue
        sign = 1.0 if direction == "minimize" else -1.0

        def target(trial: FrozenTrial, i: int = i, sign: float = sign) -> float:
            return sign * trial.values[i]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # smaller values count as better: hence the sign
            evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP)
            found[name] = get_param_importances(study, evaluator=evaluator, target=target)
    return {name: shares for name, shares in found.items() if shares}
