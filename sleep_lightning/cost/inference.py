"""What a trained model costs to use, known from its configuration: FLOPs awake and asleep, bytes of a session."""

from dataclasses import dataclass

from sleep_lightning.config import Experiment
from sleep_lightning.config.outline import outline
from sleep_lightning.sleep import Window, make_schedule, zero_memory
from sleep_lightning.sleep.counted_flops import logits_flops, summary_bytes
from sleep_lightning.sleep.schedule import PassFlops

KINDS = {
    "states": "fast weights",
    "conv": "convolutions",
    "kv": "keys and values",
    "present": "keys and values",
    "summaries": "summaries",
}
"""What the fields of a memory are called in tables."""


@dataclass(frozen=True)
class InferenceCost:
    """Cost of answering with a model, one sequence.

    Attributes:
        wake_flops_per_token: forward over a full window with logits, by token: what an answer costs; the same for
            every N unless ``wake_passes`` is set.
        sleep_flops_per_window: all passes before a full window is evicted, its reading included.
        state_bytes: what is kept of a sequence between windows, fp32: fast weights, and where they are carried the
            convolutions' inputs and the cache of sliding eviction. Summaries of compaction: for one window.
    """

    wake_flops_per_token: float
    sleep_flops_per_window: int
    state_bytes: int


def inference_cost(experiment: Experiment) -> InferenceCost:
    """Inference cost of the experiment's model on windows of L tokens."""
    L, behind = experiment.sleep.window_size, experiment.sleep.retrieved_windows
    # with as many windows before it as it may retrieve
    awake = _forward(experiment, Window(behind * L, (behind + 1) * L, sleeps=False))
    return InferenceCost(
        wake_flops_per_token=(awake + logits_flops(outline(experiment), L)) / L,
        sleep_flops_per_window=_forward(experiment, Window(0, L, sleeps=True)),
        state_bytes=sum(state_bytes(experiment).values()),
    )


def _forward(experiment: Experiment, window: Window) -> int:
    model, sleep = outline(experiment), experiment.sleep
    [[planned]], flops = make_schedule(model, [window], sleep), PassFlops(model, sleep)
    return sum(flops(planned, p).forward.total() for p in planned.passes)


def state_bytes(experiment: Experiment) -> dict[str, int]:
    """Bytes per sequence of each kind of memory that crosses a window boundary."""
    model, found = outline(experiment), dict[str, int]()
    for name, x in zero_memory(model, 1, experiment.sleep).named_tensors().items():
        kind = KINDS[name.partition(".")[0]]
        found[kind] = found.get(kind, 0) + x.nbytes
    found["summaries"] = summary_bytes(model)
    return {kind: n for kind, n in found.items() if n}
