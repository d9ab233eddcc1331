"""How many passes an adaptive sleep took, and what that is in FLOPs."""

from collections import Counter
from dataclasses import replace

from sleep_lightning.config import Experiment
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.sleep import PassRecord, Window


class PassCount:
    """Counts passes over windows that sleep; ``observe`` is an ``Observer``.

    Attributes:
        rows: sequences that ran pass n, by n, over all windows.
    """

    def __init__(self) -> None:
        self.rows: Counter[int] = Counter()

    def observe(self, window: Window, record: PassRecord) -> None:
        """One pass over the rows that were left."""
        self.rows[record.n] += len(record.h_in)

    @property
    def mean(self) -> float:
        """Passes a window, mean over windows and sequences; 0 before the first."""
        return self.rows.total() / self.rows[1] if self.rows[1] else 0.0

    def flops(self, experiment: Experiment) -> float:
        """Forward FLOPs of a sequence, its answers included, mean over sequences: windows that left after n passes as
        those of N = n. (Their last pass ran whole, as it was not known to be the last: its dead tail is not counted.)
        """
        total = 0.0
        for n in range(1, experiment.sleep.n_passes + 1):
            left = (self.rows[n] - self.rows[n + 1]) / max(self.rows[1], 1)
            sleep = replace(experiment.sleep, n_passes=n, grad_passes=None)
            total += left * sequence_cost(replace(experiment, sleep=sleep)).forward.total()
        return total
