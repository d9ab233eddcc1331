"""When to stop a trial: its cost is known in advance, so what it may still reach can be compared with the frontier.

Curves are lists of points: training FLOPs so far, and the value (more is better) at each validation. A difference
between two values that is within its binomial standard error is noise of the validation, and stops nothing.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from sleep_lightning.accuracy import standard_error
from sleep_lightning.frontier import Point, best_value

Curve = Sequence[Point]


@dataclass(frozen=True)
class Pruner:
    """Decides at every validation of a running trial.

    ``frontier`` stops a trial if all of these hold, each of which guards against one kind of mistake:

    - a finished trial that cost no more reached as much as this one would if it gained from here on what finished
      trials gained after the same share of their cost (a conformal bound, see ``gain``);
    - and as much as this one would if it continued at its own pace: a curve that is taking off continues;
    - and a finished trial had more at the same FLOPs: where all curves are flat so far, a flat curve is no evidence.

    Attributes:
        kind: ``none``; ``median``: below the median of finished trials at the same FLOPs; ``frontier``: as above.
        risk: times the share of its cost that a trial has come: the chance that it would have gained more than the
            bound. An early stop saves more and knows less. Until enough trials have finished for such a bound,
            nothing is stopped: at 0.75, six after a fifth of the cost, two after half.
        warm_up: finished trials before ``median`` stops anything.
        first_progress: nothing is stopped before this share of its cost.
        ceiling: the largest value there is.
        answers: scored in each validation; inf: its values are exact. All runs are scored on the same answers, so that
            the standard error, which takes them for independent, is too large rather than too small.
    """

    kind: Literal["none", "median", "frontier"] = "frontier"
    risk: float = 0.75
    warm_up: int = 5
    first_progress: float = 0.2
    ceiling: float = 1.0
    answers: float = math.inf

    def why_stop(self, curve: Curve, final_cost: float, finished: Sequence[Curve]) -> str | None:
        """The reason to stop a trial that has come this far; None to continue.

        Args:
            curve: its validations.
            final_cost: FLOPs it will have cost at its end.
            finished: whole curves of finished trials, of one point or more.
        """
        if self.kind == "none" or not curve or not self.first_progress <= curve[-1].cost / final_cost < 1:
            return None
        if self.kind == "median":
            return self._below_median(curve[-1], finished)
        return self._below_frontier(curve, final_cost, finished)

    def _below_median(self, now: Point, finished: Sequence[Curve]) -> str | None:
        known = [other for other in finished if _is_known(other, now.cost)]
        if len(known) < self.warm_up:
            return None
        level = median(value_at(other, now.cost) for other in known)
        if level <= now.value or self._within_noise(level, now.value):
            return None
        return f"{now.value:.3f} is below the median {level:.3f} at {now.cost:.3g} FLOPs{self._noise(level, now.value)}"

    def _below_frontier(self, curve: Curve, final_cost: float, finished: Sequence[Curve]) -> str | None:
        now = curve[-1]
        reached = best_value([other[-1] for other in finished], final_cost)
        before = max((p.value for c in finished for p in c if p.cost <= now.cost), default=-math.inf)
        if min(reached, before) <= now.value or self._within_noise(before, now.value):
            return None
        gain = max(self.gain(now.cost / final_cost, finished), gain_at_own_pace(curve, final_cost))
        optimistic = min(self.ceiling, now.value + gain)
        if reached < optimistic or self._within_noise(reached, optimistic):
            return None
        return (
            f"even {optimistic:.3f} would not beat {reached:.3f}, reached for no more than {final_cost:.3g} FLOPs"
            f"{self._noise(reached, optimistic)}"
        )

    def _within_noise(self, more: float, less: float) -> bool:
        return more - less < self._error(more, less)

    def _error(self, one: float, other: float) -> float:
        """Standard error of the difference of two shares."""
        return math.hypot(standard_error(one, self.answers), standard_error(other, self.answers))

    def _noise(self, one: float, other: float) -> str:
        """The difference beside its standard error, for a reason."""
        if self.answers == math.inf:
            return ""
        return f" (by {one - other:.3f} ± {self._error(one, other):.3f})"

    def gain(self, progress: float, finished: Sequence[Curve]) -> float:
        """What one more trial gains from this share of its cost on, exceeded with a chance of ``risk * progress``.

        This is split conformal prediction: of n gains and a new one from the same distribution, the new one exceeds
        the k-th smallest with a chance of ``1 - k / (n + 1)``. Infinite while n is too small for any bound. Trials
        that were validated at their end alone do not count: what they gained is not known.
        """
        known = [other for other in finished if _is_known(other, progress * other[-1].cost)]
        gains = sorted(other[-1].value - value_at(other, progress * other[-1].cost) for other in known)
        rank = math.ceil((1 - self.risk * progress) * (len(gains) + 1))
        return max(0.0, gains[rank - 1]) if rank <= len(gains) else math.inf


def gain_at_own_pace(curve: Curve, final_cost: float) -> float:
    """What a curve gains until its end if it continues as over the second half of its course so far.

    Infinite at its first validation, when no pace is known.
    """
    now = curve[-1]
    since = curve[max(0, bisect_right(curve, now.cost / 2, key=_cost) - 1)]
    if since is now:
        return math.inf
    return max(0.0, (now.value - since.value) / (now.cost - since.cost) * (final_cost - now.cost))


def value_at(curve: Curve, cost: float) -> float:
    """The value at the last validation that had cost no more; the first's before it."""
    return curve[max(0, bisect_right(curve, cost, key=_cost) - 1)].value


def _is_known(curve: Curve, cost: float) -> bool:
    """Whether there is a value for then: not if all there is is an end that comes later."""
    return len(curve) > 1 or curve[0].cost <= cost


def _cost(point: Point) -> float:
    return point.cost
