"""The rate of this machine: measured once, kept, measured again for another shape or a damaged file."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sleep_lightning.cli.console import time_line
from sleep_lightning.config import Experiment, Stage, TrainingConfig
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.formatting import duration
from sleep_lightning.model import ModelConfig
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.training import rate
from sleep_lightning.training.rate import Rate, keep_rate, known_rate, training_rate

SMALL = Experiment(
    Rule110Config(ring_size=6, n_strings=2, steps=[1]),
    ModelConfig(d_model=16, n_heads=2),
    SleepConfig(6, 2),
    TrainingConfig(batch_size=8, max_steps=4),
)


def test_a_rate_is_measured_once_for_a_shape(tmp_path: Path) -> None:
    file, before = tmp_path / "new" / "rates.json", torch.random.get_rng_state()
    found = training_rate(SMALL, 1, file=file)
    assert found is not None and found.flops_per_s > 0 and found.batch == 8
    assert torch.equal(torch.random.get_rng_state(), before)
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: [5e9, 3]}))
    assert training_rate(SMALL, 1, file=file) == Rate(5e9, 3)
    longer = replace(SMALL, training=replace(SMALL.training, max_steps=9, seed=1))
    assert training_rate(longer, 1, file=file) == Rate(5e9, 3)
    for other in (replace(SMALL, sleep=SleepConfig(6, 3)), replace(SMALL, model=ModelConfig(d_model=32, n_heads=2))):
        training_rate(other, 1, file=file)
    assert len(json.loads(file.read_text())) == 3


def test_a_rate_is_of_what_learns_and_of_how_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        TrainingConfig(executor="windows"),
        TrainingConfig(train="memory"),
        TrainingConfig(stages=[Stage(1, "memory")]),
    ]
    keys = {rate._key(replace(SMALL, training=t)) for t in (TrainingConfig(), *others)}
    assert len(keys) == 4
    run = list[str]()
    monkeypatch.setattr(rate, "accumulate_gradients", lambda *_, executor, **more: run.append(executor))
    for t in (SMALL.training, replace(SMALL.training, executor="windows")):
        rate._step(replace(SMALL, training=t), SMALL.build_model(), torch.device("cpu"), 1)()
    assert run == ["auto", "windows"]


def test_a_step_takes_no_longer_than_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that have the cores meanwhile do not make this machine a thousand times slower."""
    step = rate._step(SMALL, SMALL.build_model(), torch.device("cpu"), 8)
    step()
    quiet, wall = min(step() for _ in range(5)), time.perf_counter
    monkeypatch.setattr(rate.time, "perf_counter", lambda: 1000 * wall())
    assert min(step() for _ in range(5)) < 20 * quiet


def test_a_run_adds_what_it_measured_and_the_highest_rate_counts(tmp_path: Path) -> None:
    file, summary = tmp_path / "rates.json", {"tokens": 100, "train_flops": 1e9, "measured": {"tokens_per_s": 50.0}}
    assert known_rate(SMALL, file) is None
    keep_rate(SMALL, summary, file)
    assert known_rate(SMALL, file) == Rate(5e8, 8)
    keep_rate(SMALL, summary | {"measured": {"tokens_per_s": 40.0}}, file)
    keep_rate(SMALL, summary | {"measured": {"tokens_per_s": None}}, file)
    assert known_rate(SMALL, file) == Rate(5e8, 8)
    keep_rate(SMALL, summary | {"measured": {"tokens_per_s": 60.0}}, file)
    assert known_rate(SMALL, file) == Rate(6e8, 8)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": 1}', '{"a": [0, 1], "b": ["x", 2]}'])
def test_a_damaged_file_is_measured_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rates.json"
    file.write_text(content)
    found = training_rate(SMALL, 1, file=file)
    assert found is not None
    assert list(json.loads(file.read_text()).values()) == [[found.flops_per_s, found.batch]]


def test_a_place_that_cannot_be_written_costs_only_the_memory_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert training_rate(SMALL, 1, file=tmp_path / "file" / "rates.json") is not None


def test_what_one_process_cannot_tell_is_not_estimated(tmp_path: Path) -> None:
    for change in ({"compile": True}, {"devices": 2}):
        other = replace(SMALL, training=replace(SMALL.training, **change))  # type: ignore[arg-type]
        assert training_rate(other, 1, file=tmp_path / "rates.json") is None
    assert time_line(1e12, None).startswith("not estimated")


def test_a_step_that_takes_long_is_measured_on_a_part_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "PROBE_SECONDS", 0.0)
    found = training_rate(SMALL, 1, file=tmp_path / "rates.json")
    assert found is not None and found.batch == 1


def test_the_time_is_that_of_the_flops() -> None:
    flops = 600 * 8 * sequence_cost(SMALL).total
    assert time_line(flops, Rate(flops / 95, 8)).startswith("about 1 min 35 s here, at ")
    assert time_line(flops, Rate(flops / 95, 8), at_once=2).startswith("about 48 s here, at ")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "< 1 s"),
        (59.4, "59 s"),
        (95, "1 min 35 s"),
        (601, "10 min"),
        (5400, "1 h 30 min"),
        (360_000, "4.2 days"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
