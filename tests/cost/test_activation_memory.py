"""Predicted activation bytes against what autograd keeps."""

import pytest

from sleep_lightning.cost.activation_memory import count_saved, predict_activations, probe_pass
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.sleep import Checkpointing, SleepConfig, make_schedule, plan_windows
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.training.gradients import run_windows

L = 12


def kept_and_predicted(
    strings: int,
    n_passes: int,
    batch_size: int,
    policy: Checkpointing = "none",
    pattern: str = "AGAG",
    **options: object,
) -> tuple[int, int]:
    task = Rule110Config(ring_size=L, n_strings=strings, steps=[1]).build()
    config, sleep = ModelConfig(d_model=64, n_heads=4, pattern=pattern), SleepConfig(L, n_passes, **options)  # type: ignore[arg-type]
    model = HybridLM(config, len(task.vocab))
    batch = task.batch(batch_size, seed=0, position=0)
    windows = plan_windows(batch.labels, L)
    schedule = make_schedule(model, windows, sleep, checkpointing=policy)
    with count_saved(model) as saved:
        run_windows(model, batch.tokens, schedule[0], model.zero_memory(batch_size), sleep, may_run_layerwise=False)
    return saved.nbytes, predict_activations(
        probe_pass(model, L, policy=policy, looped=sleep.looped), schedule, batch_size
    )


@pytest.mark.parametrize(("strings", "n_passes", "batch_size"), [(3, 1, 4), (3, 4, 4), (8, 2, 8), (6, 3, 2)])
@pytest.mark.parametrize("pattern", ["AGAG", "AHAH", "ADAD", "AJAJ"])
def test_what_autograd_keeps_is_predicted_within_ten_percent(
    strings: int, n_passes: int, batch_size: int, pattern: str
) -> None:
    kept, predicted = kept_and_predicted(strings, n_passes, batch_size, pattern=pattern)
    assert kept == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize(("pattern", "loop"), [("AGAGAG", "2/2/2"), ("AGAGAA", "2/2/2"), ("AGAAGA", "0/2/4")])
def test_so_are_loops_over_a_part_of_the_stack(pattern: str, loop: str) -> None:
    kept, predicted = kept_and_predicted(3, 4, 4, pattern=pattern, loop=loop)
    assert kept == pytest.approx(predicted, rel=0.15)


@pytest.mark.parametrize("policy", ["none", "mlp"])
@pytest.mark.parametrize("n_passes", [2, 4])
def test_so_are_passes_without_mlps(n_passes: int, policy: Checkpointing) -> None:
    kept, predicted = kept_and_predicted(3, n_passes, 4, policy, looped="mixers")
    assert kept == pytest.approx(predicted, rel=0.1)
    assert kept < kept_and_predicted(3, n_passes, 4, policy)[0]


def test_with_recomputed_mlps_a_third_less_is_kept() -> None:
    everything, _ = kept_and_predicted(6, 3, 4)
    kept, predicted = kept_and_predicted(6, 3, 4, "mlp")
    assert kept == pytest.approx(predicted, rel=0.1)
    assert kept < 0.7 * everything


@pytest.mark.long
@pytest.mark.parametrize("policy", ["window", "pass"])
def test_checkpointing_keeps_a_fraction(policy: Checkpointing) -> None:
    everything, _ = kept_and_predicted(8, 4, 8)
    kept, predicted = kept_and_predicted(8, 4, 8, policy)
    assert kept < everything / 10
    assert kept < predicted < everything / 3


def test_truncation_bounds_memory_by_the_segment() -> None:
    task = Rule110Config(ring_size=L, n_strings=12, steps=[1]).build()
    model, sleep = HybridLM(ModelConfig(d_model=64, n_heads=4), len(task.vocab)), SleepConfig(L, 2)
    windows = plan_windows(task.batch(2, seed=0, position=0).labels, L)
    passes = probe_pass(model, L)
    whole, segments = (make_schedule(model, windows, sleep, tbptt_windows=k) for k in (None, 3))
    expected = predict_activations(passes, whole, 2) / 4
    assert predict_activations(passes, segments, 2) == pytest.approx(expected, rel=0.1)
