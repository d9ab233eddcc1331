from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sleep_lightning.config import Experiment
from sleep_lightning.cost.inference import inference_cost, state_bytes
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.ops.chunks import chunk_length
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import SleepConfig, sleep, wake, zero_memory
from sleep_lightning.tasks import Rule110Config

L = 8


def experiment(pattern: str = "AGAG", sleep: SleepConfig | None = None, **model: object) -> Experiment:
    config = ModelConfig(d_model=32, n_heads=2, pattern=pattern, backend="chunked", **model)  # type: ignore[arg-type]
    return Experiment(Rule110Config(ring_size=L, n_strings=2, steps=[1]), config, sleep or SleepConfig(L))


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ("AGAG", {"n_passes": 3}),
        ("AHDJ", {"n_passes": 2}),
        ("AGAG", {"n_passes": 2, "eviction": "sliding"}),
        ("AGAG", {"n_passes": 2, "loop": "1/2/1"}),
        ("AGAG", {"wake_passes": 3}),
    ],
)
def test_equals_the_dispatched_count(pattern: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")  # the counter does not see into the C++ kernels
    config = SleepConfig(L, **options)  # type: ignore[arg-type]
    e = experiment(pattern, config)
    model = HybridLM(e.model, 3)
    memory, tokens, cost = zero_memory(model, 1, config), torch.zeros(1, L, dtype=torch.int64), inference_cost(e)
    inverses = e.model.fast_weight_heads * (chunk_length(L) ** 3 // 3)  # triangular solves, which it does not see
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            model.logits(wake(model, tokens, memory, config)[0])
        unseen = sum(x in "GDJ" for x in pattern) * config.wake_passes * inverses
        assert counter.get_total_flops() == pytest.approx(L * cost.wake_flops_per_token - unseen, rel=0.01)
        with FlopCounterMode(display=False) as counter:
            sleep(model, tokens, memory, config)
    _, core, coda = config.parts(len(pattern))
    rules = config.n_passes * sum(pattern[i] in "GDJ" for i in core) + sum(pattern[i] in "GDJ" for i in coda)
    assert counter.get_total_flops() == pytest.approx(cost.sleep_flops_per_window - rules * inverses, rel=0.01)


def test_an_answer_costs_the_same_for_every_n() -> None:
    costs = [inference_cost(experiment(sleep=SleepConfig(L, n))) for n in (1, 2, 8)]
    assert len({c.wake_flops_per_token for c in costs}) == 1
    assert costs[0].sleep_flops_per_window < costs[1].sleep_flops_per_window < costs[2].sleep_flops_per_window / 3


@pytest.mark.parametrize("pattern", ["AGAG", "AHDJ", "AAAA", "GG"])
@pytest.mark.parametrize("options", [{}, {"eviction": "sliding"}, {"carry_conv_state": True}])
def test_state_bytes_are_those_of_a_memory(pattern: str, options: dict[str, object]) -> None:
    if pattern == "GG" and "eviction" in options:
        pytest.skip("no attention to slide")
    e = experiment(pattern, SleepConfig(L, **options))  # type: ignore[arg-type]
    memory = zero_memory(HybridLM(e.model, 3), 1, e.sleep)
    assert sum(state_bytes(e).values()) == inference_cost(e).state_bytes == memory.nbytes


def test_a_summary_is_part_of_the_state() -> None:
    e = experiment("AAAA", summary_tokens=3)
    model = HybridLM(e.model, 3)
    with torch.no_grad():
        memory = sleep(model, torch.zeros(1, L, dtype=torch.int64), zero_memory(model, 1, e.sleep), e.sleep)
    assert state_bytes(e) == {"summaries": memory.nbytes}


def test_longer_questions_do_not_change_what_a_session_takes() -> None:
    e = experiment()
    longer = replace(e, sleep=SleepConfig(2 * L))
    assert inference_cost(e).state_bytes == inference_cost(longer).state_bytes
