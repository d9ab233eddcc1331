"""When to stop a trial: its cost is known in advance, so what it may still reach can be held against the frontier.

Curves are lists of points: training FLOPs so far, and the value (more is better) at each validation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from sleep_lightning.sweep.frontier import Point, best_value

Curve = Sequence[Point]


@dataclass(frozen=True)
class Pruner:
    """Decides at every validation of a running trial.

    Attributes:
        kind: ``none``; ``median``: below the median of finished trials at the same FLOPs; ``frontier``: even if it
            gained what the luckiest finished trials gained from here on, a finished trial reached more for no more.
        warm_up: finished trials before anything is stopped.
        luck: share of finished curves whose later gain is taken as reachable, the largest left out above it.
        first_progress: nothing is stopped before this share of its steps.
        ceiling: the largest value there is.
    """

    kind: Literal["none", "median", "frontier"] = "frontier"
    warm_up: int = 5
    luck: float = 0.9
    first_progress: float = 0.2
    ceiling: float = 1.0

    def why_stop(self, curve: Curve, final_cost: float, finished: Sequence[Curve]) -> str | None:
        """The reason to stop a trial that has come this far; None to let it go on.

        Args:
            curve: its validations.
            final_cost: FLOPs it will have cost at its end.
            finished: whole curves of finished trials.
        """
        if self.kind == "none" or not curve or len(finished) < self.warm_up:
            return None
        now = curve[-1]
        progress = now.cost / final_cost
        if progress < self.first_progress or progress >= 1:
            return None
        if self.kind == "median":
            peers = [value_at(other, now.cost) for other in finished]
            level = median(peers)
            return (
                f"{now.value:.3f} is below the median {level:.3f} at {now.cost:.3g} FLOPs"
                if now.value < level
                else None
            )
        optimistic = min(self.ceiling, now.value + self.gain(progress, finished))
        reached = best_value([other[-1] for other in finished], final_cost)
        if reached >= optimistic:
            return (
                f"even {optimistic:.3f} would not beat {reached:.3f}, reached for no more than {final_cost:.3g} FLOPs"
            )
        return None

    def gain(self, progress: float, finished: Sequence[Curve]) -> float:
        """What finished trials still gained from this share of their cost on, at the ``luck`` quantile."""
        gains = sorted(other[-1].value - value_at(other, progress * other[-1].cost) for other in finished)
        return max(0.0, gains[min(len(gains) - 1, int(self.luck * len(gains)))])


def value_at(curve: Curve, cost: float) -> float:
    """The value at the last validation that had cost no more; the first's before it."""
    reached = [p.value for p in curve if p.cost <= cost]
    return reached[-1] if reached else curve[0].value
