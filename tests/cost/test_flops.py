"""The formula against a count of the operations torch dispatches."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sleep_lightning.config import Experiment, TrainingConfig
from sleep_lightning.config.outline import outline
from sleep_lightning.cost.flops import optimizer_cost, sequence_cost
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.cost.windows import planned_windows
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.ops.chunks import chunk_length
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import SleepConfig, plan_passes, plan_windows
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import Muon
from tests.model.styles import STYLES


def experiment(
    n_passes: int = 1, window: int = 8, sleep: dict[str, object] | None = None, **model: object
) -> Experiment:
    config = ModelConfig(**({"d_model": 32, "n_heads": 2, "backend": "chunked"} | model))  # type: ignore[arg-type]
    task = Rule110Config(ring_size=8, n_strings=2, steps=[1])
    return Experiment(task, config, SleepConfig(window, n_passes, **(sleep or {})), TrainingConfig(batch_size=3))  # type: ignore[arg-type]


def inverses(e: Experiment) -> int:
    """Triangular solves, which the counter does not see."""
    unseen = 0
    for window in planned_windows(18, 16, e.sleep.window_size):
        T = window.stop - window.start
        for p in plan_passes(e.model, e.sleep, sleeps=window.sleeps):
            layers = sum(e.model.mixers[i] in "GDJ" for i in p.blocks)
            heads = e.model.value_heads or e.model.fast_weight_heads
            unseen += layers * heads * (chunk_length(T) ** 3 // 3)
    return unseen


@pytest.mark.parametrize("pattern", ["AGAG", "GA", "AGA", "AHAH", "HA", "ADA", "AJAJ", "JA", "GHDJ"])
@pytest.mark.parametrize("n_passes", [1, 3])
@pytest.mark.parametrize("window", [8, 4])
@pytest.mark.parametrize("expand_v", [1.0, 2.0])
def test_equals_the_dispatched_count(
    pattern: str, n_passes: int, window: int, expand_v: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.SWITCH, "0")  # the counter does not see into the C++ kernels
    check(experiment(n_passes, window, pattern=pattern, expand_v=expand_v))


@pytest.mark.parametrize("pattern", ["AGAG", "GAAA", "GAGA"])
@pytest.mark.parametrize(
    "sleep",
    [
        {"loop": "1/2/1"},
        {"eviction": "sliding"},
        {"eviction": "sliding", "loop": "2/1/1"},
        {"wake_passes": 4},
        {"retrieved_windows": 1},
        {"grad_passes": 1},
        {"grad_passes": 2, "loop": "1/2/1"},
        {"pass_input": "embed", "grad_passes": 1},
        {"eviction": "sliding", "grad_passes": 2},
        {"loop": "1/1/2", "grad_passes": 1},
        {"carry_conv_state": True},
        {"carry_conv_state": True, "grad_passes": 1, "loop": "1/2/1"},
        {"looped": "mixers"},
        {"looped": "mixers", "grad_passes": 1},
        {"looped": "mixers", "eviction": "sliding"},
        {"looped": "mixers", "loop": "1/2/1"},
    ],
)
def test_options_equal_the_dispatched_count(
    pattern: str, sleep: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    if pattern == "GAAA" and sleep.get("loop") in ("1/2/1", "1/1/2"):
        pytest.skip("nothing in the loop or after it holds memory")
    check(experiment(3, 8, sleep, pattern=pattern))


@pytest.mark.parametrize("pattern", ["AGAG", "AHAD", "AJAJ"])
def test_carried_convolutions_equal_the_dispatched_count(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last pass, which only writes, projects queries and gates too: their inputs are in the carried state."""
    monkeypatch.setenv(build.SWITCH, "0")
    e = experiment(2, 8, {"carry_conv_state": True}, pattern=pattern)
    check(e, rel=0.001)
    plain = sequence_cost(experiment(2, 8, pattern=pattern)).forward["projections"]
    rows = {"AGAG": 1, "AHAD": 1, "AJAJ": 0}[pattern]
    assert sequence_cost(e).forward["projections"] - plain == rows * 2 * 2 * 8 * 32 * (32 + 32)


@pytest.mark.parametrize("sleep", [{}, {"eviction": "sliding"}])
@pytest.mark.parametrize("style", STYLES)
def test_pretrained_blocks_equal_the_dispatched_count(
    style: str, sleep: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    check(experiment(2, 8, sleep, **STYLES[style]))


@pytest.mark.parametrize("tbptt_windows", [1, 2, 3, 4])
@pytest.mark.parametrize("grad_passes", [None, 1])
def test_truncated_bptt_equals_the_dispatched_count(
    tbptt_windows: int, grad_passes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 windows of 4 tokens, the last with the answers: only those before it in its segment have a backward."""
    monkeypatch.setenv(build.SWITCH, "0")
    e = experiment(2, 4, {"grad_passes": grad_passes})
    outline(e)  # before k is one that experiments refuse: at 1, 2 and 4 no window that slept has a gradient
    e.training = TrainingConfig(batch_size=3, tbptt_windows=tbptt_windows)
    check(e)


@pytest.mark.parametrize("pattern", ["AGAG", "HDJ"])
def test_recomputed_mlps_equal_the_dispatched_count(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    e = experiment(3, 4, {"grad_passes": 2}, pattern=pattern)
    e.training = TrainingConfig(batch_size=3, checkpointing="mlp")
    check(e)
    plain = experiment(3, 4, {"grad_passes": 2}, pattern=pattern)
    assert sequence_cost(e).total > 1.05 * sequence_cost(plain).total


@pytest.mark.parametrize(("pattern", "loop"), [("AAAA", "all"), ("AGAG", "1/2/1")])
def test_compaction_equals_the_dispatched_count(pattern: str, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    check(experiment(2, 8, {"loop": loop}, pattern=pattern, summary_tokens=3))


def check(e: Experiment, rel: float = 0.01) -> None:
    task = e.task.build()
    model, batch = HybridLM(e.model, len(task.vocab)), task.batch(3, seed=0, position=0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        t = e.training
        accumulate_gradients(
            model, batch, e.sleep, executor="windows", tbptt_windows=t.tbptt_windows, policy=t.checkpointing
        )
    expected = 3 * (sequence_cost(e).total - inverses(e))
    assert counter.get_total_flops() == pytest.approx(expected, rel=rel)


def test_passes_cost_what_the_method_says() -> None:
    """method 3: Rule 110 in token-block units costs 1.96 / 2.92 / 3.88 of N = 1 (a little more with the head)."""

    def total(n: int) -> int:
        task = Rule110Config(ring_size=24, n_strings=4, steps=[4])
        return sequence_cost(Experiment(task, ModelConfig(d_model=256, n_heads=4), SleepConfig(24, n))).total

    for n, blocks in ((2, 1.96), (3, 2.92), (4, 3.88)):
        assert blocks < total(n) / total(1) < blocks * 1.25


def test_by_pass_adds_up_and_truncated_passes_have_no_backward() -> None:
    e = experiment(3)
    cost = sequence_cost(e)
    assert sum(part.total for part in cost.by_pass) == cost.sleeping.total + cost.answering.total == cost.total
    assert sum(part.forward for part in cost.by_pass) == cost.forward.total()
    assert cost.sleeping.forward + cost.answering.forward == cost.forward.total()
    e.sleep = SleepConfig(8, 3, grad_passes=1)
    cut = sequence_cost(e)
    assert cut.forward == cost.forward
    assert cut.by_pass[1] == (cost.by_pass[1].forward, 0)
    assert 0 < cut.by_pass[2].backward < cost.by_pass[2].backward  # of two windows only the last has one


def test_checkpointing_recomputes_the_forward() -> None:
    e = experiment(2)
    plain = sequence_cost(e)
    e.training = TrainingConfig(checkpointing="pass")
    again = sequence_cost(e)
    assert again.total - plain.total == plain.forward.total() - plain.forward["head"]


def test_plan_is_the_one_labels_give() -> None:
    for window in (4, 8, 16, 18):
        e = experiment(window=window)
        labels = e.task.build().batch(2, seed=0, position=0).labels
        assert planned_windows(18, 16, window) == tuple(plan_windows(labels, window))


def test_optimizer_cost_is_the_dispatched_count() -> None:
    p = torch.nn.Parameter(torch.randn(24, 40))
    p.grad = torch.randn(24, 40)
    with FlopCounterMode(display=False) as counter:
        Muon([(p, (24,))], 0.1, 0.0, 0.9).step()
    assert counter.get_total_flops() == optimizer_cost([(24, 40)])


def test_other_optimizers_have_no_products() -> None:
    e = experiment()
    own = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    other, model = replace(e, training=replace(e.training, optimizer=own)), e.build_model()
    muon = {"class_path": "sleep_lightning.training.optimizer.muon_adamw"}
    same = StepFlops(replace(e, training=replace(e.training, optimizer=muon)), model)
    assert StepFlops(other, model)(e.sleep) == 3 * sequence_cost(e).total
    assert same(e.sleep) == StepFlops(e, model)(e.sleep) > StepFlops(other, model)(e.sleep)


@pytest.mark.parametrize("letter", "GHDJ")
def test_writes_cost_less_than_reads(letter: str) -> None:
    [mixer] = HybridLM(ModelConfig(d_model=256, n_heads=4, pattern=letter), 3).memory_layers
    read, write = mixer.flops(24), mixer.flops(24, read=False)
    assert read is not None and write is not None
    for component in ("memory_rule", "projections"):
        assert write.forward[component] < read.forward[component]
