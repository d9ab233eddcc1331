"""What a trained model costs to use, known from its configuration: FLOPs awake and asleep, bytes of a session."""

from dataclasses import dataclass

from sleep_lightning.config import Experiment
from sleep_lightning.cost.flops import pass_cost, window_passes
from sleep_lightning.model.config import MEMORY_MIXERS, ModelConfig
from sleep_lightning.sleep import Window

FP32 = 4


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
    L, model = experiment.sleep.window_size, experiment.model
    awake = _forward(experiment, Window(0, L, sleeps=False))
    head = 2 * L * model.d_model * len(experiment.task.build().vocab)
    return InferenceCost(
        wake_flops_per_token=(awake + head) / L,
        sleep_flops_per_window=_forward(experiment, Window(0, L, sleeps=True)),
        state_bytes=sum(state_bytes(experiment).values()),
    )


def _forward(experiment: Experiment, window: Window) -> int:
    model, sleep = experiment.model, experiment.sleep
    T = window.stop - window.start + (model.summary_tokens if window.sleeps else sleep.retrieved_windows * window.stop)
    return sum(
        pass_cost(model, T, write_only, part, sleep.cached_tokens)[0].total()
        for _, part, write_only in window_passes(model, sleep, window)
    )


def state_bytes(experiment: Experiment) -> dict[str, int]:
    """Bytes per sequence of each kind of memory that crosses a window boundary."""
    model, sleep = experiment.model, experiment.sleep
    layers = [letter for letter in model.pattern if letter in MEMORY_MIXERS]
    attention, cached = model.pattern.count("A"), sleep.cached_tokens
    floats = {
        "fast weights": len(layers) * model.fast_weight_heads * model.key_dim_per_head * model.value_dim_per_head,
        "convolutions": sum(_conv_floats(model, letter) for letter in layers) if sleep.carry_conv_state else 0,
        "keys and values": (attention * 2 * model.d_model + 1) * cached if attention else 0,  # and which are there
        "summaries": model.summary_tokens * model.d_model,
    }
    return {kind: FP32 * n for kind, n in floats.items() if n}


def _conv_floats(model: ModelConfig, letter: str) -> int:
    """Inputs that a layer's convolution looks back at: of q, k and v, in a Jet block of v."""
    values = model.fast_weight_heads * model.value_dim_per_head
    keys = 0 if letter == "J" else 2 * model.fast_weight_heads * model.key_dim_per_head
    return max(model.conv_size - 1, 0) * (keys + values)
