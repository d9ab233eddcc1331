"""FLOPs of a training step, known before step 0: a pure function of the experiment.

Counted are the matrix products, the attention and the memory rules as the window loop runs them (a multiply-add is 2
FLOPs); norms, activations and other elementwise work are not. Layer by layer, ``pass_input: embed`` takes fewer. The
model says what a pass takes, or its products are counted (``sleep/schedule.py``). ``tests/cost/test_flops.py`` compares
the result with a count of the operations torch dispatches.
"""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from sleep_lightning.config import Experiment
from sleep_lightning.config.outline import outline
from sleep_lightning.cost.windows import expected_schedules, labelled_share
from sleep_lightning.model import HybridLM, WindowModel
from sleep_lightning.model.parameter_groups import Matrices, hidden_matrices
from sleep_lightning.sleep.counted_flops import logits_flops
from sleep_lightning.sleep.retrieval import likeness_flops
from sleep_lightning.sleep.schedule import PassFlops


@dataclass(frozen=True)
class Cost:
    """FLOPs of one sequence in training.

    Attributes:
        forward: by component (embedding look-ups cost no FLOPs).
        backward: by component, recomputation under checkpointing included.
        by_pass: of pass 1, 2, ... N over all windows; an answer window is a pass 1 (if ``wake_passes`` is 1), a prelude
            belongs to the first pass, a coda to the last.
        sleeping, answering: of the windows that sleep, and of those with answers.
    """

    forward: Counter[str]
    backward: Counter[str]
    by_pass: tuple["Flops", ...]
    sleeping: "Flops"
    answering: "Flops"

    @property
    def total(self) -> int:
        return self.forward.total() + self.backward.total()


class Flops(NamedTuple):
    """Of a part of a step."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward

    def plus(self, forward: int, backward: int) -> "Flops":
        return Flops(self.forward + forward, self.backward + backward)


def sequence_cost(experiment: Experiment) -> Cost:
    """Cost of one sequence of the experiment's task; of rows of different lengths, the mean."""
    sleep, model = experiment.sleep, outline(experiment)
    pass_flops, forward, backward = PassFlops(model, sleep), Counter[str](), Counter[str]()
    by_pass = [Flops()] * max(sleep.n_passes, sleep.wake_passes)
    by_kind = {True: Flops(), False: Flops()}
    labelled = labelled_share(experiment, model)
    for schedule, share in expected_schedules(experiment, model, sleep):
        for planned in (one for segment in schedule for one in segment):
            window = planned.window
            for p in planned.passes:
                flops = pass_flops(planned, p)
                ahead, back = Counter(flops.forward), Counter(flops.backward)
                if not window.sleeps and p is planned.passes[-1]:
                    own = window.stop - window.start
                    ahead["head"] = round(labelled * logits_flops(model, own))
                    back["head"] = ahead["head"] * (2 if _learns(model) else 1)
                    ahead["retrieval"] = likeness_flops(model, own, window.start) if sleep.retrieved_windows else 0
                ahead, back = (Counter({key: round(share * n) for key, n in x.items()}) for x in (ahead, back))
                forward += ahead
                backward += back
                by_pass[p.n - 1] = by_pass[p.n - 1].plus(ahead.total(), back.total())
                by_kind[window.sleeps] = by_kind[window.sleeps].plus(ahead.total(), back.total())
    return Cost(forward, backward, tuple(by_pass), by_kind[True], by_kind[False])


def _learns(model: WindowModel) -> bool:
    """Whether the output head does."""
    return not isinstance(model, HybridLM) or model.head.weight.requires_grad


def muon_matrices(experiment: Experiment, model: WindowModel) -> Matrices:
    """The matrices that Muon trains, as ``hidden_matrices`` gives them; none under another optimizer."""
    if not experiment.training.uses_muon:
        return []
    return [(p, splits) for p, splits in hidden_matrices(model) if p.requires_grad]


def optimizer_cost(shapes: list[tuple[int, int]]) -> int:
    """FLOPs of Muon's five Newton-Schulz steps over matrices of these shapes, once per optimiser step."""
    total = 0
    for rows, columns in shapes:
        short, long = sorted((rows, columns))
        total += 5 * (4 * short * short * long + 2 * short**3)
    return total
