"""A trained model's answers beside those that it gives without sleep, with more in its window or with less.

Every one reads the same sequences with the same weights: what a model has learnt that it cannot do with all of the
evidence in view, it has not forgotten. Arms that are trained themselves are in ``compare/arms.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.config.checks import did_you_mean
from sleep_lightning.model import Memory, WindowModel
from sleep_lightning.tasks import Split
from sleep_lightning.training.evaluation import score_split
from sleep_lightning.training.metrics import Score


@dataclass(frozen=True)
class Beside:
    """Attributes:
    about: one line of description.
    changes: derives ``key=value`` changes from the experiment that was trained.
    forgets: the memory is zeroed at every boundary.
    """

    about: str
    changes: Callable[[Experiment], list[str]] = lambda e: []
    forgets: bool = False


def in_one_window(e: Experiment, *changes: str) -> list[str]:
    """Changes under which nothing is evicted."""
    changed = load_experiment(e.to_dict(), changes) if changes else e
    return [*changes, f"sleep.window_size={max(2, changed.task.build().sequence_length)}"]


def keep(e: Experiment, kept: str) -> list[str]:
    """Changes under which a text's context is cut down to one window, which is read with the question."""
    if not hasattr(e.task, "kept"):
        raise ValueError(f"this arm is for tasks of text, and task.name={e.task.name} has none")
    return in_one_window(e, f"task.kept={kept}", "task.kept_windows=1")


BESIDE = {
    "sleep": Beside("as it was trained"),
    "window": Beside("the window alone: memory zeroed at every boundary", forgets=True),
    "full-cache": Beside("nothing evicted: all of it in one window", in_one_window),
    "retrieval": Beside(
        "memory zeroed; the evicted window whose embeddings are most like the question's is read again",
        lambda e: ["sleep.retrieved_windows=1"],
        forgets=True,
    ),
    "bm25": Beside("the question with the window of text that BM25 finds for it", lambda e: keep(e, "bm25")),
    "summary": Beside("the question with an extractive summary, one window long", lambda e: keep(e, "summary")),
}
"""By name."""


def with_changes(experiment: Experiment, names: Sequence[str]) -> dict[str, Experiment]:
    """The experiment as each arm of ``BESIDE`` changes it.

    Raises:
        ValueError: an unknown name, or a change that does not fit the experiment.
    """
    for name in names:
        if name not in BESIDE:
            raise ValueError(
                f"--beside {name!r} is unknown; {did_you_mean(name, BESIDE) or 'use ' + ', '.join(BESIDE)}"
            )
    found = {}
    for name in dict.fromkeys(names):
        try:
            changes = [
                "training.prelude_cache=null",
                *BESIDE[name].changes(experiment),
            ]  # other windows, each seen once
            found[name] = load_experiment(experiment.to_dict(), changes)
        except ValueError as error:
            raise ValueError(f"--beside {name}: {error}") from error
    return found


def score_beside(model: WindowModel, changed: Mapping[str, Experiment], split: Split) -> dict[str, dict[str, Score]]:
    """Scores by slice of every arm, all on the same sequences and each beside its baselines.

    Args:
        model: trained.
        changed: from ``with_changes``.
        split: whose sequences are answered.
    """

    def forget(_: int, memory: Memory) -> Memory:
        return memory.zeroed()

    return {
        name: score_split(e, model, split, at_boundary=forget if BESIDE[name].forgets else None)
        for name, e in changed.items()
    }
