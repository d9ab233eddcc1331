"""What a pruner would have saved and lost: a sweep replayed from complete recorded curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from sleep_lightning.frontier import Point, hypervolume
from sleep_lightning.sweep.pruning import Curve, Pruner


@dataclass(frozen=True)
class Replay:
    """A sweep with a pruner, compared with the same trials all trained to their ends.

    Attributes:
        finished: indices of the trials that were not stopped, in the order in which they finished.
        flops_saved: share of the training FLOPs of all trials.
        hypervolume_lost: share of the hypervolume of all trials, up to the largest cost of any and down to value 0,
            as a sweep logs it.
        best_lost: drop of the best value. The hypervolume does not show it: a trial that costs as much as the
            reference adds nothing to it.
    """

    finished: tuple[int, ...]
    flops_saved: float
    hypervolume_lost: float
    best_lost: float


def replay(curves: Sequence[Curve], order: Sequence[int], pruner: Pruner, workers: int = 1) -> Replay:
    """Replay the trials in this order, several at a time, with time proportional to FLOPs.

    Args:
        curves: all validations of every trial; none was stopped when it was recorded.
        order: indices of the curves in the order of the trials.
        pruner: decides at each validation from the trials finished by then.
        workers: number of concurrent trials.
    """
    waiting = list(reversed(order))
    validations: list[tuple[float, int, int, float]] = []  # when, trial, which, when the trial began
    finished: list[int] = []
    spent = 0.0

    def begin(now: float) -> None:
        if waiting:
            trial = waiting.pop()
            heappush(validations, (now + curves[trial][0].cost, trial, 0, now))

    for _ in range(workers):
        begin(0.0)
    while validations:
        now, trial, i, began = heappop(validations)
        curve = curves[trial]
        last = i == len(curve) - 1
        if last:
            finished.append(trial)
        if last or pruner.why_stop(curve[: i + 1], curve[-1].cost, [curves[other] for other in finished]):
            spent += curve[i].cost
            begin(now)
        else:
            heappush(validations, (began + curve[i + 1].cost, trial, i + 1, began))
    return _against_no_pruning([curves[trial][-1] for trial in order], curves, finished, spent)


def _against_no_pruning(ends: list[Point], curves: Sequence[Curve], finished: list[int], spent: float) -> Replay:
    kept = [curves[trial][-1] for trial in finished]
    reference = Point(max(end.cost for end in ends), 0.0)
    whole = hypervolume(ends, reference)
    return Replay(
        finished=tuple(finished),
        flops_saved=1 - spent / sum(end.cost for end in ends),
        hypervolume_lost=1 - hypervolume(kept, reference) / whole if whole else 0.0,
        best_lost=max(end.value for end in ends) - max(end.value for end in kept),
    )
