"""The windows of rows of different lengths, foreseen."""

import json
from collections import Counter
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from sleep_lightning.config import Experiment, TrainingConfig
from sleep_lightning.cost import windows
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.cost.windows import SAMPLED, expected_windows
from sleep_lightning.model import ModelConfig
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import LARGE_VOCABULARY, SleepConfig
from sleep_lightning.tasks import DepoConfig
from sleep_lightning.tasks.text import TextConfig
from sleep_lightning.training.gradients import accumulate_gradients


def experiment(pad: str) -> Experiment:
    """Cycles of 3 to 12 nodes: of six windows of 4 edges, up to four hold nothing but pads."""
    return Experiment(
        DepoConfig(n_nodes=12, min_nodes=3, name_symbols=12, n_queries=3, pad=pad),  # type: ignore[arg-type]
        ModelConfig(d_model=32, n_heads=2, pattern="AH"),
        SleepConfig(4, 2),
        TrainingConfig(batch_size=8, accumulate=4, seed=3),
    )


def test_micro_batches_are_drawn_where_windows_of_pads_are_left_out() -> None:
    plans = expected_windows(experiment("neutral"))
    assert sum(plans.values()) == pytest.approx(1)
    asleep = Counter[int]()
    for plan, share in plans.items():
        asleep[sum(window.sleeps for window in plan)] += round(share * SAMPLED / 2)
        assert [w.sleeps for w in plan] == sorted((w.sleeps for w in plan), reverse=True)
    assert set(asleep) <= {2, 3, 4, 5, 6} and len(asleep) > 2
    [(plan, share)] = expected_windows(experiment("token")).items()
    assert [w.sleeps for w in plan] == [True] * 6 + [False] * 3 and share == 1


def test_cost_is_the_mean_of_what_the_batches_dispatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")  # the counter does not see into the C++ kernels
    monkeypatch.setattr(windows, "SAMPLED", 8)
    e = experiment("neutral")
    e.training.seed = 5
    task, model = e.task.build(), e.build_model()
    counted = 0
    for position in range(1):
        batch = task.batch(8, seed=5, position=position)
        for start in range(0, 8, 2):
            with FlopCounterMode(display=False) as counter:
                accumulate_gradients(model, batch.rows(start, start + 2), e.sleep, executor="windows")
            counted += counter.get_total_flops()
    assert counted / 8 == pytest.approx(sequence_cost(e).total, rel=0.01)
    assert sequence_cost(e).total < 0.9 * sequence_cost(experiment("token")).total


def test_of_a_large_vocabulary_the_head_counts_where_labels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    e = experiment("token")
    e.model.vocab_size = LARGE_VOCABULARY  # type: ignore[union-attr]
    batch, cost = e.task.build().batch(8, seed=3, position=0), sequence_cost(e)
    with FlopCounterMode(display=False) as counter:
        accumulate_gradients(e.build_model(), batch, e.sleep, executor="windows")
    memory = predict_step_memory(e, e.build_model())
    monkeypatch.setattr(windows, "LARGE_VOCABULARY", LARGE_VOCABULARY + 1)
    whole, more = sequence_cost(e), predict_step_memory(e, e.build_model())
    assert counter.get_total_flops() == 8 * cost.total
    assert cost.forward["head"] < 0.6 * whole.forward["head"] and cost.forward["mlp"] == whole.forward["mlp"]
    answers = 2 * 4 * LARGE_VOCABULARY * 12  # bytes of a micro-batch's logits
    assert memory is not None and more is not None and memory < more - 0.4 * answers


def test_memory_is_that_of_the_longest() -> None:
    neutral, token = experiment("neutral"), experiment("token")
    one, whole = (predict_step_memory(e, e.build_model()) for e in (neutral, token))
    assert one is not None and whole is not None and one < 1.02 * whole  # masks


def test_a_file_that_was_written_again_is_drawn_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"

    def asleep(context: str) -> float:
        """Mean windows that are slept on."""
        records = ({"context": f"{n:3d}{context}", "question": "q", "answer": "a"} for n in range(128))
        file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        e = Experiment(
            TextConfig(train=str(file), window_tokens=16, context_windows=6),
            ModelConfig(d_model=32, n_heads=2, pattern="AH"),
            SleepConfig(16, 2),
            TrainingConfig(batch_size=8),
        )
        return sum(share * sum(w.sleeps for w in plan) for plan, share in expected_windows(e).items())

    assert asleep("x" * 20) < 2.5
    assert asleep("x" * 70) > 4
