"""The plan of passes: what runs, how often, with which gradient and recomputation."""

import pytest

from sleep_lightning.model import ModelConfig
from sleep_lightning.sleep import Pass, SleepConfig, Window, make_schedule, plan_passes, run_window_loop, zero_memory
from sleep_lightning.sleep.schedule import Checkpointing, PlannedWindow, check_checkpointing
from tests.conftest import tiny_batch, tiny_model
from tests.model.own_model import own_model

L = 6
WINDOWS = [Window(0, 6, True), Window(6, 12, True), Window(12, 18, True), Window(18, 21, False)]


def stack(pattern: str = "AGAGA", **options: object) -> ModelConfig:
    return ModelConfig(d_model=16, n_heads=2, pattern=pattern, **options)  # type: ignore[arg-type]


def test_the_last_pass_of_a_sleep_stops_at_the_last_write() -> None:
    first, second = plan_passes(stack(), SleepConfig(L, 2), sleeps=True)
    assert first == Pass(1, "core", range(5))
    assert second == Pass(2, "core", range(4), writes_only=True)
    assert plan_passes(stack("AAAA"), SleepConfig(L), sleeps=True)[0].blocks == range(0)


def test_an_answer_is_one_pass_over_all_blocks() -> None:
    config = SleepConfig(L, 3, loop="1/3/1", grad_passes=1)
    assert plan_passes(stack(), config, sleeps=False) == (Pass(1, "core", range(5)),)


def test_a_loop_has_a_prelude_and_a_coda() -> None:
    passes = plan_passes(stack(), SleepConfig(L, 2, loop="1/2/2"), sleeps=True)
    assert [(p.n, p.part, p.blocks, p.writes_only) for p in passes] == [
        (1, "prelude", range(1), False),
        (1, "core", range(1, 3), False),
        (2, "core", range(1, 3), False),
        (2, "coda", range(3, 4), True),
    ]


def test_a_coda_that_writes_nothing_is_left_out() -> None:
    *_, last = plan_passes(stack("AGAAA"), SleepConfig(L, 2, loop="1/2/2"), sleeps=True)
    assert last == Pass(2, "core", range(1, 2), writes_only=True)
    *_, last = plan_passes(stack("AGAAA"), SleepConfig(L, 2, loop="1/2/2", eviction="sliding"), sleeps=True)
    assert last == Pass(2, "coda", range(3, 5), writes_only=True)  # keys and values are kept of all blocks


def test_summaries_need_the_hidden_states_of_the_last_pass() -> None:
    passes = plan_passes(stack("AAAA", summary_tokens=2), SleepConfig(L, 2, loop="1/2/1"), sleeps=True)
    assert [p.part for p in passes] == ["prelude", "core", "core", "coda"]
    assert not any(p.writes_only for p in passes)


def test_truncated_passes_carry_no_gradient_and_nothing_to_recompute() -> None:
    config = SleepConfig(L, 3, loop="1/4/0", grad_passes=1)
    passes = plan_passes(stack(), config, sleeps=True, checkpointing="pass")
    assert [p.gradient for p in passes] == [False, False, False, True]
    assert [p.recompute for p in passes] == ["none", "none", "none", "pass"]


def planned(checkpointing: Checkpointing, **options: object) -> list[PlannedWindow]:
    [segment] = make_schedule(stack(), WINDOWS, SleepConfig(L, 2, **options), checkpointing=checkpointing)  # type: ignore[arg-type]
    return segment


@pytest.mark.parametrize(
    ("checkpointing", "sleeping", "answering"),
    [
        ("none", (False, "none"), (False, "none")),
        ("mlp", (False, "mlp"), (False, "mlp")),
        ("pass", (False, "pass"), (True, "none")),  # an answer is one pass: all of the window
        ("window", (True, "none"), (True, "none")),
    ],
)
def test_checkpointing_says_what_is_recomputed(
    checkpointing: Checkpointing, sleeping: tuple[bool, str], answering: tuple[bool, str]
) -> None:
    *asleep, awake = planned(checkpointing)
    for one in asleep:
        assert {(one.recompute, p.recompute) for p in one.passes} == {sleeping}
    assert {(awake.recompute, p.recompute) for p in awake.passes} == {answering}


def test_segments_are_those_of_truncated_bptt_and_know_what_the_loss_reaches() -> None:
    segments = make_schedule(stack(), WINDOWS, SleepConfig(L, 2), tbptt_windows=2)
    assert [[one.window for one in segment] for segment in segments] == [WINDOWS[:2], WINDOWS[2:]]
    assert [[one.reached for one in segment] for segment in segments] == [[False, False], [True, True]]
    assert [one.reached for one in planned("none")] == [True] * 4
    assert [one.reached for one in planned("none", grad_passes=1)] == [False, False, True, True]


def test_tokens_of_a_pass_are_those_that_are_read() -> None:
    assert [one.tokens for one in planned("none")] == [6, 6, 6, 3]
    assert [one.tokens for one in planned("none", retrieved_windows=2)] == [6, 6, 6, 3 + 2 * L]
    compacting = stack("AAAA", summary_tokens=2)
    [segment] = make_schedule(compacting, WINDOWS, SleepConfig(L))
    assert [one.tokens for one in segment] == [6 + 2, 6 + 4, 6 + 6, 3 + 6]


@pytest.mark.parametrize(
    "options", [{"n_passes": 3}, {"n_passes": 2, "loop": "1/2/1"}, {"n_passes": 3, "loop": "0/3/1", "wake_passes": 2}]
)
def test_the_window_loop_runs_the_schedule(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass of the plan, in its order, over as many tokens, and nothing else."""
    model, batch, config = tiny_model(), tiny_batch(ring=L), SleepConfig(L, **options)  # type: ignore[arg-type]
    ran: list[tuple[int, range, bool]] = []
    blocks, write = model.blocks, model.write
    monkeypatch.setattr(
        model, "blocks", lambda h, m, pad, part: (ran.append((h.shape[1], part, False)), blocks(h, m, pad, part))[1]
    )
    monkeypatch.setattr(
        model, "write", lambda h, m, pad, part: (ran.append((h.shape[1], part, True)), write(h, m, pad, part))[1]
    )
    list(run_window_loop(model, batch.tokens, WINDOWS, zero_memory(model, len(batch.tokens), config), config))
    [segment] = make_schedule(model, WINDOWS, config)
    assert ran == [(one.tokens, p.blocks, p.writes_only) for one in segment for p in one.passes]


def test_a_model_that_cannot_recompute_its_mlps_is_refused() -> None:
    check_checkpointing(tiny_model(), "mlp")
    check_checkpointing(own_model(), "window")
    with pytest.raises(ValueError, match=r"training\.checkpointing=mlp .*OwnModel\.blocks has no recompute_mlp"):
        check_checkpointing(own_model(), "mlp")
