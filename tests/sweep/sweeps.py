"""A sweep small enough for tests."""

from typing import Any

from sleep_lightning.config import load_experiment
from sleep_lightning.sweep.space import Parameter, Space
from sleep_lightning.sweep.spec import Budget, Sweep, SweepSpec
from tests.cli.cli import ROOT


def small_sweep(
    trials: int = 4,
    workers: int = 1,
    flops: float | None = None,
    many_points: bool = True,
    space_only_passes: bool = False,
    **options: Any,
) -> Sweep:
    """Six points, or with ``many_points`` so many that none comes twice, by a key that changes nothing; with
    ``space_only_passes`` four."""
    space = {
        "sleep.n_passes": Parameter([1, 2, 3, 4]),
        "sleep.grad_passes": Parameter([None, 1], when={"sleep.n_passes": [3, 4]}),
    }
    if space_only_passes:
        del space["sleep.grad_passes"]
    elif many_points:
        space["training.log_every"] = Parameter(low=1, high=10_000)
    defaults: dict[str, Any] = {"sampler": "random", "pruner": "none", "retries": 1}
    options = {"name": "small", "base": "-", "space": space, "budget": Budget(trials, flops)} | defaults | options
    spec = SweepSpec(workers=workers, **options)
    base = load_experiment(ROOT / "conf" / "depo.yaml", ["tracking.enabled=false"])
    return Sweep(spec, Space(space), base)
