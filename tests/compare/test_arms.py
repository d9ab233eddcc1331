import pytest

from sleep_lightning.compare.arms import ARMS, NEEDS_TEXT, build_arms
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.config.stages import drawn_passes
from sleep_lightning.cost.run_flops import predict_flops
from sleep_lightning.model import ModelConfig
from sleep_lightning.tasks.suites import NeedleConfig
from tests.cli.cli import ROOT

BASE = load_experiment(ROOT / "conf" / "depo.yaml", ["sleep.n_passes=4", "training.max_steps=100"])


def arm(name: str, base: Experiment = BASE) -> Experiment:
    return build_arms(base, [name])[0].apply(base)


flops = predict_flops


@pytest.mark.parametrize("name", [name for name in ARMS if name not in NEEDS_TEXT])
@pytest.mark.parametrize("config", ["rule110", "depo"])
def test_every_arm_changes_a_shipped_experiment(name: str, config: str) -> None:
    base = load_experiment(ROOT / "conf" / f"{config}.yaml", ["sleep.n_passes=3"])
    changed = arm(name, base)
    assert changed != base
    assert changed.task == base.task
    assert changed.training.batch_size == base.training.batch_size


@pytest.mark.parametrize("name", NEEDS_TEXT)
def test_arms_that_cut_a_text_down_read_what_is_left_in_one_window(name: str) -> None:
    pytest.importorskip("bm25s")
    base = load_experiment(ROOT / "conf" / "needle.yaml")
    changed = arm(name, base)
    assert isinstance(changed.task, NeedleConfig) and isinstance(changed.model, ModelConfig)
    assert changed.task.kept == name
    assert changed.sleep.window_size == changed.task.build().sequence_length < base.task.build().sequence_length
    assert set(changed.model.pattern) == {"A"}
    with pytest.raises(
        ValueError, match=rf"--arms {name}: this arm is for tasks of text, and task\.name=depo has none"
    ):
        arm(name)


@pytest.mark.parametrize("name", ["deeper", "more-tokens"])
@pytest.mark.parametrize("config", ["rule110", "depo"])
@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["training.batch_size=8"],  # Muon takes a large share of a step
        ["training.sampled_passes=[1, 2, 4]"],
        ["training.stages=[{steps: 300, n_passes: 2, train: memory}]"],
    ],
)
def test_equal_flops_are_equal_by_the_count_of_runs(name: str, config: str, changes: list[str]) -> None:
    base = load_experiment(ROOT / "conf" / f"{config}.yaml", ["sleep.n_passes=4", *changes])
    changed = arm(name, base)
    assert drawn_passes(changed) == [1]
    assert flops(changed) == pytest.approx(flops(base), rel=0.15 if name == "deeper" else 0.002)
    if name == "more-tokens":
        assert flops(changed) <= flops(base)


@pytest.mark.parametrize("name", ["n1", "more-tokens", "deeper", "wake-loops"])
def test_an_arm_of_one_pass_has_no_other_in_its_stages(name: str) -> None:
    stages = "[{steps: 10, n_passes: 2}, {steps: 20, eviction: sliding, train: memory}]"
    base = load_experiment(ROOT / "conf" / "depo.yaml", ["sleep.n_passes=4", f"training.stages={stages}"])
    changed = arm(name, base)
    assert drawn_passes(changed) == [1]
    kept = [(s.steps, s.eviction, s.train) for s in changed.training.stages]
    assert kept == [(10, None, "all"), (20, "sliding", "memory")]


def test_repeated_data_is_the_same_for_one_pass_and_many() -> None:
    many, once = arm("repeated"), arm("repeated-tokens")
    assert many.training.unique_sequences == once.training.unique_sequences == 128 * 10
    assert (many.sleep.n_passes, once.sleep.n_passes) == (4, 1)
    assert flops(once) == pytest.approx(flops(many), rel=0.01)


def test_the_staged_arm_trains_the_memory_first() -> None:
    stages = arm("sliding-staged").training.stages
    assert [(s.steps, s.train, s.eviction) for s in stages] == [(33, "memory", "hard")]
    assert arm("sliding-staged").sleep.eviction == arm("sliding").sleep.eviction == "sliding"


def test_passes_by_number() -> None:
    assert [arm(f"n{n}").sleep.n_passes for n in (1, 2, 8)] == [1, 2, 8]


def test_full_attention_has_one_window() -> None:
    e = arm("full-attention")
    assert set(e.model.pattern) == {"A"}
    assert e.sleep.window_size == e.task.build().sequence_length


def test_any_change_under_a_name() -> None:
    e = arm("wide:model.d_model=96;model.n_heads=3")
    assert (e.model.d_model, e.model.n_heads) == (96, 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["n0"], r"--arms n0: sleep\.n_passes=0 must be at least 1"),
        (["sleepy"], r"--arms 'sleepy' is unknown; use n1, n2"),
        (["a b:sleep.n_passes=2"], r"the name must be letters"),
        (["wide:model.d_modell=9"], r"--arms wide: model\.d_modell=9: there is no key"),
        (["n1", "n1"], r"names an arm twice"),
    ],
)
def test_arms_that_are_none(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_arms(BASE, names)


def test_controls_of_n_passes_need_some() -> None:
    base = load_experiment(ROOT / "conf" / "depo.yaml", ["sleep.n_passes=1"])
    drawn = load_experiment(ROOT / "conf" / "depo.yaml", ["training.sampled_passes=[1, 4]"])
    for arm in build_arms(drawn, ["n1", "attention", "more-tokens"]):
        assert not arm.apply(drawn).training.sampled_passes
    for arm in ("re-embed", "reset-memory"):
        with pytest.raises(ValueError, match=f"--arms {arm} compares with the base's N passes"):
            build_arms(base, [arm])
    with pytest.raises(ValueError, match=r"--arms more-tokens compares with the base's N passes"):
        build_arms(base, ["more-tokens"])
