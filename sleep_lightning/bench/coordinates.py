"""Coordinate check: sizes of activations and of their updates over width and over N, at the start of training.

Where a recipe transfers, a column is flat: a learning rate found on a narrow model with few passes then holds on a wide
one with many (Tensor Programs V, appendix D.1; for N, the same along depth).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.model import Memory, WindowModel
from sleep_lightning.sleep import PassRecord, plan_windows, run_window_loop, zero_memory
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.tracking.figures.coordinates import SIZES
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer

WIDTHS, PASSES = (32, 64, 128, 256), (1, 2, 4, 8)
BASE_WIDTH, BASE_PASSES = 64, 4
STEPS = 10
"""Optimizer steps, at the full rate."""
HEAD_DIM = 16
ROWS = 32


@dataclass(frozen=True)
class Coordinates:
    """Root mean squares on a fixed batch.

    Attributes:
        hidden: hidden states behind the last whole pass of the first window; of the answer at N = 1.
        memory: the fast weights before the answer.
        logits: of the answer.
    """

    hidden: Tensor
    memory: Tensor
    logits: Tensor


def bench_coordinates(seconds: float) -> Iterator[dict[str, object]]:
    """A row for each width at N = 4, and for each N at d = 64, also without dividing by N what a pass adds.

    ``seconds`` is not used: the steps are counted.
    """
    over_n = [(BASE_WIDTH, n) for n in PASSES]
    for what, settings, changes in (
        ("coordinates over width", [(d, BASE_PASSES) for d in WIDTHS], []),
        ("coordinates over N", over_n, []),
        ("coordinates over N, residual_scale = 1", over_n, ["model.residual_scale=1"]),
    ):
        for d_model, n_passes in settings:
            before, after = run(d_model, n_passes, *changes)
            row: dict[str, object] = {
                "what": what,
                "shape": f"Rule 110, {STEPS} steps",
                "d_model": d_model,
                "N": n_passes,
            }
            for name in SIZES:
                old, new = getattr(before, name), getattr(after, name)
                row |= {name: rms(old), f"{name}_update": rms(new - old)}
            yield row


def run(d_model: int, n_passes: int, *changes: str) -> tuple[Coordinates, Coordinates]:
    """Coordinates before and after ``STEPS`` steps of the default recipe, with ``key=value`` changes."""
    e = load_experiment(
        None,
        [
            "task.name=rule110",
            "task.ring_size=12",
            "task.steps=[3]",
            "sleep.window_size=12",
            f"sleep.n_passes={n_passes}",
            f"model.d_model={d_model}",
            f"model.n_heads={d_model // HEAD_DIM}",
            f"training.batch_size={ROWS}",
            *changes,
        ],
    )
    torch.manual_seed(0)
    task = e.task.build()
    model = e.build_model(task)
    optimizer = build_optimizer(model, e.training)
    held_out = task.batch(ROWS, seed=0, position=0, split="validation")
    before = measure(model, held_out, e)
    for step in range(STEPS):
        optimizer.zero_grad()
        accumulate_gradients(model, task.batch(ROWS, seed=0, position=step), e.sleep)
        optimizer.step()
    return before, measure(model, held_out, e)


@torch.no_grad()
def measure(model: WindowModel, batch: TaskBatch, e: Experiment) -> Coordinates:
    """Coordinates of a batch of one answering window."""
    windows, seen, answers = plan_windows(batch.labels, e.sleep.window_size), list[Tensor](), list[Tensor]()
    memory: Memory = zero_memory(model, len(batch.tokens), e.sleep)

    def observe(window: object, record: PassRecord) -> None:
        if record.h_out is not None:
            seen.append(record.h_out)

    for _, h, after in run_window_loop(model, batch.tokens, windows, memory, e.sleep, observe=observe):
        if h is None:
            memory = after
        else:
            answers.append(h)
    [h] = answers
    passes = e.sleep.n_passes - 1  # the last one only writes
    return Coordinates(
        seen[passes - 1] if passes else h, torch.cat([s.flatten() for s in memory.states]), model.logits(h)
    )


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())
