"""What a session says of its memory."""

import math

import pytest
import torch

from sleep_lightning.session.inspection import _effective_rank
from tests.session.conftest import L, tiny_session


def test_effective_rank() -> None:
    assert _effective_rank(torch.zeros(3, 4)) == 0
    assert _effective_rank(torch.eye(5)) == pytest.approx(5)
    assert _effective_rank(torch.ones(5, 2)) == pytest.approx(1, abs=1e-4)
    assert 1 < _effective_rank(torch.diag(torch.tensor([1.0, 0.1]))) < 2
    assert math.isnan(_effective_rank(torch.full((2, 2), torch.nan)))


def test_every_head_of_every_block() -> None:
    session = tiny_session({"pattern": "GADAH"})
    session.append([1, 2, 3, 4, 5, 6, 7, 8])
    found = session.inspect()
    assert [(h.block, h.head, h.rule) for h in found.heads] == [
        (0, 0, "GatedDeltaNet"),
        (0, 1, "GatedDeltaNet"),
        (2, 0, "DeltaNet"),
        (2, 1, "DeltaNet"),
        (4, 0, "GatedHebbian"),
        (4, 1, "GatedHebbian"),
    ]
    states = session._state.window.memory.states
    for head in found.heads:
        S = states[head.block // 2][0, head.head]
        assert head.norm == pytest.approx(float(S.norm()), rel=1e-5)
        assert 1 <= head.effective_rank <= min(S.shape) and len(head.by_pass) == 3
        assert head.change is not None and 0 < head.change and all(0 < c for c in head.by_pass)
    assert found.tokens_seen == 8 and found.window == session.provenance()[-1]
    assert all(h.half_life == math.inf for h in found.heads if h.rule == "DeltaNet")


def test_half_lives_are_those_of_the_gates() -> None:
    """A state that nothing is written to has halved after so many tokens like those that were read."""
    session = tiny_session({"pattern": "G"})
    session.append([4, 4, 4])
    head = session.inspect().heads[1]
    with torch.no_grad():
        inputs = session.model.stack[0].project(session.model.embed(torch.tensor([[4]])), read=False)
    decay = float(inputs.g[0, 0, 1].exp())
    assert head.half_life is not None and decay**head.half_life == pytest.approx(0.5, rel=1e-4)


def test_changes_are_those_of_the_passes() -> None:
    session = tiny_session({"pattern": "GA"})
    session.append([1, 2, 3])
    before = session.memory.states[0][0].clone()
    session.sleep()
    after = session.memory.states[0][0]
    head = session.inspect().heads[0]
    assert head.change == pytest.approx(float((after[0] - before[0]).norm() / after[0].norm()), rel=1e-5)
    assert head.by_pass[0] == pytest.approx(1), "the first pass began with nothing"
    session.append([1])
    assert session.inspect().heads[0].change == head.change, "the window that was closed last"


def test_a_table_and_a_picture() -> None:
    pytest.importorskip("matplotlib")
    session = tiny_session()
    assert "half-life" in str(session.inspect()) and session.inspect().heads[0].half_life is None
    assert session.inspect().figure().axes
    session.append([1] * (L + 1))
    lines = session.inspect().table().splitlines()
    assert len(lines) == 1 + 4 and "pass 3" in lines[0] and len({len(line) for line in lines}) == 1
    figure = session.inspect().figure()
    assert [a.get_title() for a in figure.axes] == [
        "norm",
        "effective rank",
        "half-life (tokens)",
        "change of the last window",
    ]


def test_attention_alone_has_no_heads_to_show() -> None:
    session = tiny_session({"pattern": "AA"})
    session.append([1] * 8)
    assert session.inspect().heads == () and session.inspect().table() and session.diff(session.fork()).blocks == ()


def test_difference() -> None:
    session = tiny_session()
    session.append([1] * L)
    fork = session.fork()
    same = session.diff(fork)
    assert same.distance == (0.0, 0.0) and same.cosine == pytest.approx((1, 1)) and same.same_windows == 1
    session.append([2] * L)
    fork.append([3] * (2 * L))
    found = session.diff(fork)
    assert found.blocks == (0, 2) and all(0 < d < 2 for d in found.distance)
    assert (found.same_windows, len(found.only_self), len(found.only_other)) == (1, 1, 2)
    assert "1 windows in common" in str(found)
    with pytest.raises(ValueError, match="two models"):
        session.diff(tiny_session())
