"""The windows that an experiment's batches will have, before its first step."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from torch import Tensor

from sleep_lightning.config import Experiment, texts_in
from sleep_lightning.model import WindowModel
from sleep_lightning.model.parameter_groups import frozen_blocks
from sleep_lightning.sleep import (
    IGNORE,
    LARGE_VOCABULARY,
    PlannedWindow,
    SleepConfig,
    Window,
    make_schedule,
    plan_windows,
)
from sleep_lightning.tasks import Task, TaskBatch
from sleep_lightning.tasks.stamp import stamp

SAMPLED = 256
"""Rows of training that are drawn to see their windows, if rows may differ."""
SAMPLED_TOKENS = 2**20
"""Tokens of these rows: of long ones fewer are drawn, a batch at least."""
Plan = tuple[Window, ...]


def planned_windows(sequence_length: int, context_length: int, window_size: int) -> Plan:
    """The windows of ``sleep.plan_windows`` for labels that begin at ``context_length``, without any tensor."""
    starts = range(0, sequence_length, window_size)
    stops = [min(start + window_size, sequence_length) for start in starts]
    return tuple(Window(start, stop, stop <= context_length) for start, stop in zip(starts, stops, strict=True))


def expected_windows(experiment: Experiment) -> dict[Plan, float]:
    """The plans of micro-batches, and their shares of all.

    A task without a neutral pad has one. One with such a pad may have rows of different lengths: the first
    micro-batches of the run are drawn, ``SAMPLED`` rows of them.
    """
    task, L = experiment.task.build(), experiment.sleep.window_size
    if task.neutral_pad is None:
        return {planned_windows(task.sequence_length, task.context_length, L): 1.0}
    t = experiment.training
    return dict(_drawn(_Key(experiment), t.batch_size, t.accumulate, t.seed))


def expected_schedules(
    experiment: Experiment, model: WindowModel, sleep: SleepConfig
) -> Iterator[tuple[list[list[PlannedWindow]], float]]:
    """The schedules of ``expected_windows`` in training, and their shares."""
    t, frozen = experiment.training, frozen_blocks(model)
    for windows, share in expected_windows(experiment).items():
        schedule = make_schedule(
            model, windows, sleep, checkpointing=t.checkpointing, tbptt_windows=t.tbptt_windows, frozen=frozen
        )
        yield schedule, share


class _Key:
    """Task and sleep of an experiment, compared by what they say and when the files they name were changed."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        anchored = experiment.anchored()  # names of files mean others in another directory
        files = stamp(text for _, text in texts_in(anchored.values()["task"], "task"))
        self._means = f"{anchored.task!r} {anchored.sleep!r}", files

    def __hash__(self) -> int:
        return hash(self._means)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other._means == self._means


def labelled_share(experiment: Experiment, model: WindowModel) -> float:
    """Mean share of the tokens of answering windows for which training computes logits.

    1, except for a large vocabulary, where those with labels are counted in the first batch.
    """
    t = experiment.training
    if model.vocab_size < LARGE_VOCABULARY or t.cuda_graph:
        return 1.0
    return _share(_Key(experiment), t.batch_size, t.seed)


@lru_cache(maxsize=16)
def _share(key: _Key, batch_size: int, seed: int) -> float:
    task = key.experiment.task.build()
    rows = min(batch_size, max(1, SAMPLED_TOKENS // task.sequence_length))
    labels, windows = _planned(key.experiment.sleep, task, task.batch(rows, seed=seed, position=0))
    answering = sum(window.stop - window.start for window in windows if not window.sleeps)
    return int((labels != IGNORE).sum()) / max(1, rows * answering)


@lru_cache(maxsize=16)
def _drawn(key: _Key, batch_size: int, accumulate: int, seed: int) -> tuple[tuple[Plan, float], ...]:
    task, plans, rows = key.experiment.task.build(), Counter[Plan](), batch_size // accumulate
    batches = min(-(-SAMPLED // batch_size), max(1, SAMPLED_TOKENS // (batch_size * task.sequence_length)))
    for position in range(batches):
        batch = task.batch(batch_size, seed=seed, position=position)
        for start in range(0, batch_size, rows):
            plans[_planned(key.experiment.sleep, task, batch.rows(start, start + rows))[1]] += 1
    return tuple((plan, n / plans.total()) for plan, n in plans.items())


def _planned(sleep: SleepConfig, task: Task, batch: TaskBatch) -> tuple[Tensor, Plan]:
    """Labels and windows of a micro-batch, its rows aligned."""
    if (pad := task.neutral_pad) is None:
        return batch.labels, tuple(plan_windows(batch.labels, sleep.window_size))
    batch = batch.aligned(sleep, pad)
    return batch.labels, tuple(plan_windows(batch.labels, sleep.window_size, batch.tokens.eq(pad)))
