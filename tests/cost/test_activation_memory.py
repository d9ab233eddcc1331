"""Predicted activation bytes against what autograd keeps."""

import pytest

from sleep_lightning.cost.activation_memory import count_saved, predict_activations, probe_pass
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.sleep import Checkpoint, SleepConfig, plan_windows
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.training.gradients import run_windows

L = 12


def kept_and_predicted(
    strings: int,
    n_passes: int,
    batch_size: int,
    policy: Checkpoint = "none",
    pattern: str = "AGAG",
    *,
    shares_weights: bool = True,
) -> tuple[int, int]:
    task = Rule110Config(ring_size=L, n_strings=strings, steps=[1]).build()
    config, sleep = ModelConfig(d_model=64, n_heads=4, pattern=pattern), SleepConfig(L, n_passes)
    model = HybridLM(config, len(task.vocab))
    model.shares_weights = shares_weights
    batch = task.batch(batch_size, seed=0, position=0)
    windows = plan_windows(batch.labels, L)
    with model.shared_weights(batch.tokens.numel()), count_saved(model) as saved:
        run_windows(
            model,
            batch.tokens,
            windows,
            model.zero_memory(batch_size),
            sleep,
            policy=policy,
            executor="windows",
        )
    passes = probe_pass(model, L, policy=policy)
    return saved.nbytes, predict_activations(passes, windows, sleep, batch_size, policy=policy)


@pytest.mark.parametrize(("strings", "n_passes", "batch_size"), [(3, 1, 4), (3, 4, 4), (8, 2, 8), (6, 3, 2)])
@pytest.mark.parametrize("pattern", ["AGAG", "AHAH", "ADAD", "AJAJ"])
def test_what_autograd_keeps_is_predicted_within_ten_percent(
    strings: int, n_passes: int, batch_size: int, pattern: str
) -> None:
    kept, predicted = kept_and_predicted(strings, n_passes, batch_size, pattern=pattern)
    assert kept == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("shares_weights", [True, False])
def test_without_what_mlps_make_again_a_third_less_is_kept(shares_weights: bool) -> None:
    everything, _ = kept_and_predicted(6, 3, 4, shares_weights=shares_weights)
    kept, predicted = kept_and_predicted(6, 3, 4, "mlp", shares_weights=shares_weights)
    assert kept == pytest.approx(predicted, rel=0.1)
    assert kept < 0.7 * everything


@pytest.mark.parametrize("policy", ["window", "pass"])
def test_checkpointing_keeps_a_fraction(policy: Checkpoint) -> None:
    everything, _ = kept_and_predicted(8, 4, 8)
    kept, predicted = kept_and_predicted(8, 4, 8, policy)
    assert kept < everything / 10
    assert kept < predicted < everything / 3


def test_truncation_bounds_memory_by_the_segment() -> None:
    task = Rule110Config(ring_size=L, n_strings=12, steps=[1]).build()
    model, sleep = HybridLM(ModelConfig(d_model=64, n_heads=4), len(task.vocab)), SleepConfig(L, 2)
    windows = plan_windows(task.batch(2, seed=0, position=0).labels, L)
    passes = probe_pass(model, L)
    whole = predict_activations(passes, windows, sleep, 2)
    assert predict_activations(passes, windows, sleep, 2, tbptt_windows=3) == pytest.approx(whole / 4, rel=0.1)
