"""What an answer costs: by hand for attention, beside a session's own bill, and for what reads a window again."""

from dataclasses import replace

import pytest

from sleep_lightning.config import load_experiment
from sleep_lightning.cost.answering import (
    Asked,
    Piece,
    answer_cost,
    asked_of,
    break_even,
    experiment_answer_cost,
    pieces,
)
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import SleepConfig
from tests.cli.cli import ROOT

L, VOCAB = 4, 5
ASKED = Asked(context=2 * L, question=2)


def hybrid(pattern: str = "AG", **more: int) -> HybridLM:
    return HybridLM(ModelConfig(d_model=4, n_heads=1, d_ff=8, pattern=pattern, **more), VOCAB)  # type: ignore[arg-type]


def one_pass(model: HybridLM, T: int, cached_tokens: int = 0, *, writes_only: bool = False) -> int:
    blocks = range(model.n_blocks)
    flops = model.pass_flops(T, blocks, writes_only=writes_only, cached_tokens=cached_tokens)
    assert flops is not None
    return flops.forward.total()


def test_a_full_cache_by_hand() -> None:
    """Projections 4 -> 12 and 4 -> 4, SwiGLU 4 -> 16 and 8 -> 4, attention of 2 tokens on 8, a head of 4 x 5."""
    by_token = 2 * (4 * 12 + 4 * 4 + 4 * 16 + 8 * 4)
    cost = answer_cost(hybrid("A"), SleepConfig(16), Asked(context=6, question=2))
    assert cost.answer_flops == 2 * by_token + 4 * 2 * 8 * 4 + 2 * 4 * VOCAB
    assert cost.reading_flops == 6 * by_token + 4 * 6 * 6 * 4
    assert cost.held_bytes == 6 * 2 * 4 * 4  # tokens, keys and values, width, fp32
    assert cost.sleep_flops == cost.looped_flops == 0 and cost.questions is None


@pytest.mark.parametrize("n_passes", [1, 3])
def test_a_session_pays_just_that(n_passes: int) -> None:
    model, config = hybrid(), SleepConfig(L, n_passes)
    cost, session = answer_cost(model, config, ASKED), SleepSession(model, config)
    session.append([1] * ASKED.context)
    read = session.cost.wake.flops
    assert (read, session.cost.sleep.flops) == (cost.reading_flops, cost.sleep_flops)
    session.ask([1] * ASKED.question, 1, keep=False)
    assert session.cost.wake.flops - read == cost.answer_flops
    assert session.memory.nbytes == cost.held_bytes < session.nbytes


def test_break_even_by_hand() -> None:
    """Over each of two windows a whole pass and one that only writes; over every question two passes more."""
    model = hybrid()
    cost = answer_cost(model, SleepConfig(L, 3), ASKED)
    assert cost.sleep_flops == 2 * (one_pass(model, L) + one_pass(model, L, writes_only=True))
    assert cost.looped_flops == 2 * one_pass(model, 2)
    assert cost.questions == cost.sleep_flops / cost.looped_flops
    awake = answer_cost(model, SleepConfig(L, wake_passes=3), ASKED)
    assert awake.answer_flops == answer_cost(model, SleepConfig(L), ASKED).answer_flops + cost.looped_flops
    assert awake.sleep_flops == 0 and awake.questions is None
    assert break_even(6.0, 2.0) == 3 and break_even(0.0, 2.0) is None and break_even(6.0, 0.0) is None


def test_what_needs_a_window_at_once_reads_it_again() -> None:
    model, head = hybrid(), 2 * 4 * VOCAB
    found = answer_cost(model, SleepConfig(L, retrieved_windows=1), ASKED)
    assert found.answer_flops == one_pass(model, L + 2) + 2 * 2 * ASKED.context * 4 + head
    assert found.held_bytes == model.zero_memory(1).nbytes + 8 * ASKED.context
    summaries = hybrid("A", summary_tokens=1)
    compacted = answer_cost(summaries, SleepConfig(L), ASKED)
    assert compacted.answer_flops == one_pass(summaries, 2 + 2) + head
    assert compacted.reading_flops == one_pass(summaries, L + 1) + one_pass(summaries, L + 2)
    assert compacted.held_bytes == 2 * 4 * 4
    looped = answer_cost(model, SleepConfig(L, wake_passes=2), Asked(L + 1, 2))
    assert looped.answer_flops == 2 * one_pass(model, 3) + head


def test_a_question_in_two_windows() -> None:
    asked = Asked(context=L + 3, question=2)
    assert list(pieces(L, asked)) == [Piece(4, 7, 8), Piece(8, 8, 9)]
    model = hybrid()
    cost = answer_cost(model, SleepConfig(L, 3), asked)
    assert cost.answer_flops == one_pass(model, 1, 3) + one_pass(model, 1) + 2 * 4 * VOCAB
    assert cost.held_bytes == model.zero_memory(1).nbytes + 3 * 2 * 4 * 4  # keys and values of three tokens
    sliding = answer_cost(model, SleepConfig(L, eviction="sliding"), asked)
    assert sliding.answer_flops == one_pass(model, 1, 2 * L - 2) + one_pass(model, 1, L - 1) + 2 * 4 * VOCAB


@pytest.mark.long
def test_the_question_of_an_experiment() -> None:
    depo = load_experiment(ROOT / "conf" / "depo.yaml", [])
    assert asked_of(depo) == Asked(context=16, question=2)
    with_passes = (replace(depo, sleep=replace(depo.sleep, n_passes=n, grad_passes=None)) for n in (1, 4))
    costs = [experiment_answer_cost(e, asked_of(e)) for e in with_passes]
    assert costs[0].answer_flops == costs[1].answer_flops and costs[0].held_bytes == costs[1].held_bytes
    assert costs[0].questions is None and costs[1].questions is not None


def test_a_search_is_part_of_the_question() -> None:
    pytest.importorskip("bm25s")
    found = load_experiment(ROOT / "conf" / "needle.yaml", ["task.kept=bm25", "sleep.window_size=96"])
    read = load_experiment(found.to_dict(), ["task.kept=summary"])
    assert asked_of(found) == Asked(0, sum(asked_of(read)))
    ahead, asked = (experiment_answer_cost(e, asked_of(e)) for e in (read, found))
    assert asked.answer_flops > ahead.answer_flops and asked.reading_flops == 0 < ahead.reading_flops
    assert asked.held_bytes >= 8 * 96
