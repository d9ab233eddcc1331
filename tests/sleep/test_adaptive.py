"""Adaptive sleep against each sequence slept on alone, with the N at which its memory settles."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.config import Experiment
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.sleep import PassRecord, SleepConfig, run_window_loop, sleep, zero_memory
from sleep_lightning.sleep.adaptive import change
from sleep_lightning.sleep.layerwise import not_known_legal
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.prediction import predict
from tests.conftest import tiny_batch, tiny_model

T, N, B = 6, 5, 6
OPTIONS: list[dict[str, Any]] = [
    {},
    {"loop": "1/2/1"},
    {"loop": "1/2/1", "eviction": "sliding"},
    {"pass_input": "inject"},
    {"reset_memory_between_passes": True},
    {"looped": "mixers"},
    {"eviction": "sliding"},
]


def tokens() -> Tensor:
    return torch.randint(3, (B, T), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def changes(model: HybridLM, config: SleepConfig) -> Tensor:
    """Of every pass and row, ``[N, B]``: passes over the whole batch, none left out."""
    seen: list[PassRecord] = []
    memory = zero_memory(model, B, config)
    sleep(model, tokens(), memory, replace(config, tolerance=None), observe=seen.append)
    before = [memory, *(record.memory_out for record in seen)]
    return torch.stack([change(a, b) for a, b in pairwise(before)])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_row_gets_the_passes_until_it_settles(options: dict[str, Any]) -> None:
    model, config = tiny_model().double(), SleepConfig(T, N, **options)
    tolerance = float(changes(model, config)[2].median())
    settled = changes(model, config) <= tolerance
    passes = [next((n for n in range(1, N) if settled[n - 1, row]), N) for row in range(B)]
    assert len(set(passes)) > 1, "some rows settle sooner than others"
    ran: Counter[int] = Counter()
    slept = sleep(
        model,
        tokens(),
        zero_memory(model, B, config),
        replace(config, tolerance=tolerance),
        observe=lambda record: ran.update({record.n: len(record.h_in)}),
    )
    assert [ran[n] for n in range(1, N + 1)] == [sum(p >= n for p in passes) for n in range(1, N + 1)]
    for row, n in enumerate(passes):
        own = replace(config, n_passes=n)
        alone = sleep(model, tokens()[row : row + 1], zero_memory(model, 1, own), own)
        for a, b in zip(slept.named_tensors().values(), alone.named_tensors().values(), strict=True):
            torch.testing.assert_close(a[row : row + 1], b)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_bounds(options: dict[str, Any]) -> None:
    """No tolerance: all N passes. More change than any: one."""
    model, config = tiny_model(), SleepConfig(T, N, **options)
    for tolerance, n in ((0.0, N), (1e9, 1)):
        adaptive, fixed = replace(config, tolerance=tolerance), replace(config, n_passes=n)
        a, b = (sleep(model, tokens(), zero_memory(model, B, c), c) for c in (adaptive, fixed))
        torch.testing.assert_close(list(a.named_tensors().values()), list(b.named_tensors().values()))


def test_answers_and_later_windows_follow() -> None:
    model, batch = tiny_model(), tiny_batch(ring=T)
    once, all_of_them = (predict(model, batch, SleepConfig(T, n)) for n in (1, N))
    assert predict(model, batch, SleepConfig(T, N, tolerance=0.0)).equal(all_of_them)
    torch.testing.assert_close(predict(model, batch, SleepConfig(T, N, tolerance=1e9)), once)
    assert not torch.allclose(once, all_of_them)


def test_training_runs_all_passes() -> None:
    gradients = []
    for tolerance in (None, 1e9):
        model = tiny_model()
        accumulate_gradients(model, tiny_batch(ring=T), SleepConfig(T, 3, tolerance=tolerance))
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_layer_by_layer_is_not_taken() -> None:
    config = SleepConfig(T, 2, pass_input="embed", tolerance=0.1)
    assert not_known_legal(tiny_model(), config) == "sleep.tolerance=0.1"


def test_a_window_that_writes_nothing_has_settled() -> None:
    model = tiny_model()
    memory = model.zero_memory(2)
    assert change(memory, memory).tolist() == [0, 0]
    written = memory.map(lambda x: x + 1)
    assert change(memory, written).tolist() == [1, 1]


def test_passes_that_observers_see_are_those_that_ran() -> None:
    model, batch = tiny_model(), tiny_batch(ring=T)
    config = SleepConfig(T, N, tolerance=1e9)
    windows = [window for window, *_ in _run(model, batch.tokens, config, None)]
    ran: list[int] = []
    list(_run(model, batch.tokens, config, lambda _, record: ran.append(record.n)))
    assert ran == [1] * sum(window.sleeps for window in windows)


def _run(model: HybridLM, tokens_BT: Tensor, config: SleepConfig, observe: Any) -> Any:
    from sleep_lightning.sleep import plan_windows

    labels = tiny_batch(ring=T).labels
    memory = zero_memory(model, len(tokens_BT), config)
    return run_window_loop(model, tokens_BT, plan_windows(labels, T), memory, config, observe=observe)


@pytest.mark.parametrize(
    ("pattern", "sleep", "model"),
    [
        ("AA", {"eviction": "sliding"}, {}),
        ("AAAA", {}, {"summary_tokens": 2}),
        ("GAAG", {"eviction": "sliding", "loop": "1/2/1"}, {}),
    ],
)
def test_it_needs_fast_weights_in_the_loop(pattern: str, sleep: dict[str, Any], model: dict[str, Any]) -> None:
    """Keys, values and summaries do not say that they have settled."""
    config, task = SleepConfig(T, 2, tolerance=0.1, **sleep), Rule110Config(ring_size=T, n_strings=2, steps=[1])
    message = r"^sleep\.tolerance=0\.1 ends the passes by .* the fast weights, and no looped block holds any; use null"
    with pytest.raises(ValueError, match=message):
        Experiment(task, ModelConfig(32, pattern, **model), config)
    with pytest.raises(ValueError, match=message):
        predict(tiny_model(pattern=pattern, **model), tiny_batch(ring=T), config)
    Experiment(task, ModelConfig(32, pattern, **model), replace(config, n_passes=1))


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_out_of_range_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"sleep\.tolerance=.* must be from 0"):
        SleepConfig(T, 2, tolerance=tolerance)
