"""The bill says what the schedule says."""

from typing import Any

import pytest

from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import Window, plan_passes
from sleep_lightning.sleep.schedule import PassFlops, PlannedWindow
from tests.session.conftest import L, tiny_session


def flops_of_a_window(session: SleepSession, T: int) -> tuple[int, int]:
    """Of reading T tokens at once, and of the passes after the first, as ``cost`` counts them."""
    model, config = session.model, session.config
    flops, passes = PassFlops(model, config), plan_passes(model, config, sleeps=True)
    planned = PlannedWindow(Window(0, T, True), passes, T, False, False)
    reading = plan_passes(model, config, sleeps=False)[0]
    later = [p for p in passes if p.part == "coda" or (p.part == "core" and p.n > 1)]
    return flops(planned, reading).forward.total(), sum(flops(planned, p).forward.total() for p in later)


@pytest.mark.parametrize("sleep", [{}, {"loop": "1/2/1"}, {"eviction": "sliding"}, {"looped": "mixers"}])
def test_two_lines(sleep: dict[str, Any]) -> None:
    session = tiny_session(sleep=sleep)
    session.append(list(range(L)))
    read, slept = flops_of_a_window(session, L)
    assert (session.cost.wake.tokens, session.cost.wake.flops) == (L, read)
    assert (session.cost.sleep.tokens, session.cost.sleep.flops) == (2 * L, slept) and slept > 0
    session.append([1, 2, 3])
    session.sleep()
    assert session.cost.sleep.tokens == 2 * L + 2 * 3
    assert session.cost.sleep.flops == slept + flops_of_a_window(session, 3)[1]
    assert session.cost.wake.seconds > 0 < session.cost.sleep.seconds


def test_one_pass_is_no_sleep() -> None:
    session = tiny_session(sleep={"n_passes": 1})
    session.append([1] * 2 * L)
    assert session.cost.sleep.tokens == session.cost.sleep.flops == 0 and session.windows_closed == 2


def test_a_token_costs_what_it_sees() -> None:
    """Attention sees the window so far, whatever was read before it."""
    session, costs = tiny_session(), []
    for token in range(2 * L):
        before = session.cost.wake.flops
        session.append([token % 5])
        costs.append(session.cost.wake.flops - before)
    assert costs[:L] == costs[L:] == sorted(costs[:L]) and costs[0] < costs[L - 1]


def test_an_answer_costs_the_same_whatever_n_is_and_was_read() -> None:
    flops = set()
    for n_passes, read in ((1, 9), (4, 9), (4, 9 + 5 * L)):
        session = tiny_session(sleep={"n_passes": n_passes})
        session.append([1] * read)
        before = session.cost.wake.flops
        session.ask([2], 2, keep=False)
        flops.add(session.cost.wake.flops - before)
    assert len(flops) == 1


def test_what_was_thrown_away_has_been_paid() -> None:
    session = tiny_session()
    session.append([1, 2])
    snapshot, before = session.snapshot(), session.cost.wake.flops
    session.ask([1], 2, keep=False)
    asked = session.cost.wake.flops
    session.append([3])
    session.rollback(snapshot)
    assert before < asked < session.cost.wake.flops and session.fork().cost.wake.flops == 0


def test_adaptive_passes_that_were_not_made_cost_nothing() -> None:
    session = tiny_session(sleep={"n_passes": 9, "tolerance": 1e9})
    session.append([1, 2, 3])
    assert session.sleep() == 1 and session.cost.sleep.tokens == 0
