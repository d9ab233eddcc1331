"""N sampled per step, the two-stage recipe, and the proof that runs saw the same data."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sleep_lightning.config import load_experiment
from sleep_lightning.config.stages import sleep_of, stage_of
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training.callbacks.history import History
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.trainer import build_trainer
from tests.training.test_module import experiment, train

TWO_STAGES = "training.stages=[{steps: 2, train: memory, eviction: hard}, {steps: 1}]"


def test_stages_follow_each_other_then_all_is_as_configured() -> None:
    e = experiment("sleep.eviction=sliding", "training.max_steps=5", TWO_STAGES)
    assert [stage_of(e, step).train for step in range(5)] == ["memory", "memory", "all", "all", "all"]
    assert [sleep_of(e, step).eviction for step in range(5)] == ["hard", "hard", "sliding", "sliding", "sliding"]


def test_the_memory_stage_moves_nothing_but_memory_layers() -> None:
    e = experiment("sleep.eviction=sliding", "training.max_steps=2", TWO_STAGES.replace(", {steps: 1}", ""))
    torch.manual_seed(0)
    before = SleepModule(e).model.state_dict()
    after = train(e).model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    memory = [f"layers.{i}." for i, letter in enumerate(e.model.pattern) if letter != "A"]
    expected = {n for n in before if any(n.startswith((f"{m}mixer.", f"{m}mixer_norm.")) for m in memory)}
    assert moved == expected


def test_the_stage_behind_it_moves_everything() -> None:
    e = experiment("sleep.eviction=sliding", "training.max_steps=4", TWO_STAGES)
    torch.manual_seed(0)
    before = SleepModule(e).model.state_dict()
    after = train(e).model.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_sampled_passes_depend_on_seed_and_step_only() -> None:
    e = experiment("training.sampled_passes=[1,2,4]", "sleep.n_passes=4")
    drawn = [sleep_of(e, step).n_passes for step in range(600)]
    assert drawn == [sleep_of(e, step).n_passes for step in range(600)]
    assert all(150 < count < 250 for count in Counter(drawn).values())
    other = replace(e, training=replace(e.training, seed=1))
    assert drawn != [sleep_of(other, step).n_passes for step in range(600)]


def test_a_curriculum_over_passes() -> None:
    """N of the stages, then that of the sleep; a stage wins over sampled passes."""
    stages = "training.stages=[{steps: 2, n_passes: 1}, {steps: 1, n_passes: 2}]"
    e = experiment(stages, "sleep.n_passes=4", "training.max_steps=6")
    assert [sleep_of(e, step).n_passes for step in range(6)] == [1, 1, 2, 4, 4, 4]
    e = experiment(stages, "sleep.n_passes=4", "training.sampled_passes=[3]", "training.max_steps=6")
    assert [sleep_of(e, step).n_passes for step in range(6)] == [1, 1, 2, 3, 3, 3]


def test_flops_are_those_of_the_passes_that_were_run() -> None:
    e = experiment("training.sampled_passes=[1,4]", "training.max_steps=6")
    monitor, expected = ResourceMonitor(), 0
    train(e, None, monitor)
    count = StepFlops(e, e.build_model())
    for step in range(6):
        cost = sequence_cost(replace(e, sleep=sleep_of(e, step))).total
        expected += e.training.batch_size * cost + count.optimizer
    assert monitor.train_flops == monitor.predicted_run_flops() == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stages=[{steps: 9}]", r"training\.stages take 9 steps, more than training\.max_steps=3"),
        ("training.stages=[{steps: 0}]", r"steps=0 must be at least 1"),
        ("training.stages=[{steps: 1, train: some}]", r"training\.stages="),
        ("training.stages=[{steps: 1, n_passes: 0}]", r"n_passes=0 must be at least 1"),
        ("training.sampled_passes=[0]", r"training\.sampled_passes=\[0\]"),
    ],
)
def test_impossible_stages_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment(override)


SLIDING, FOUR = (
    "training.stages=[{steps: 1}, {steps: 1, eviction: sliding}]",
    "training.stages=[{steps: 1, n_passes: 4}]",
)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.pattern=GGGG", SLIDING], r"^training\.stages\[1\]: sleep\.eviction=sliding with .* keeps nothing"),
        (["sleep.retrieved_windows=1", SLIDING], r"^training\.stages\[1\]: sleep\.retrieved_windows=1 needs"),
        (["model.summary_tokens=4", SLIDING], r"^training\.stages\[1\]: model\.summary_tokens=4 needs"),
        (["model.pattern=AAAA", FOUR], r"^training\.stages\[0\]: sleep\.n_passes=4 with .* has no effect"),
        (
            ["model.pattern=AAAA", "training.sampled_passes=[1,4]"],
            r"^training\.sampled_passes: sleep\.n_passes=4 with .* has no effect",
        ),
    ],
)
def test_what_is_refused_of_a_run_is_refused_of_its_steps(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment("sleep.n_passes=1", *overrides)


def digests(*overrides: str) -> dict[str, str]:
    history = History()
    train(experiment("training.val_every=1", *overrides), None, history)
    return history.digests


@pytest.mark.long
def test_every_n_and_model_sees_the_same_data_in_the_same_order() -> None:
    """Hash of all batches so far, at every step; another seed gives another."""
    plain = digests("sleep.n_passes=1")
    assert list(plain) == ["1", "2", "3"]
    assert len(set(plain.values())) == 3
    others = ["sleep.n_passes=4", "model.pattern=AAAA", "training.accumulate=4", "sleep.eviction=sliding"]
    for other in others:
        passes = ["sleep.n_passes=1"] if "AAAA" in other else []
        assert digests(other, *passes) == plain
    assert not set(plain.values()) & set(digests("training.seed=1").values())


def test_a_resumed_run_goes_on_with_the_same_hash(tmp_path: Path) -> None:
    whole = digests("training.max_steps=4")
    e = experiment(f"training.run_dir={tmp_path}/run", "training.checkpoint_every=2", "training.max_steps=2")
    run, _lock = RunDirectory.create(e)
    train(e, run)
    longer = load_experiment(e.to_dict(), ["training.max_steps=4", "training.val_every=1"])
    module = SleepModule(longer)
    build_trainer(longer, callbacks=[history := History()]).fit(
        module, datamodule=TaskDataModule(longer), ckpt_path=run.last, weights_only=True
    )
    assert history.digests["4"] == whole["4"]
