"""What a session does with its state: to the bit."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import SleepConfig
from tests.conftest import tiny_model
from tests.model.own_model import own_model
from tests.session.conftest import VOCAB, L, Letters, bits, go_on, same, tiny_session


def test_fork_and_origin_go_on_independently(session: SleepSession) -> None:
    before, fork = bits(session), session.fork()
    expected = go_on(session.fork())
    assert same(bits(fork), before) and same(bits(session), before)
    assert go_on(fork)[0] == expected[0] and same(bits(fork), expected[1])
    assert same(bits(session), before), "the fork has written into its origin"
    session.append([7, 7])  # into slots that the fork has filled otherwise
    assert same(bits(fork), expected[1]), "the origin has written into its fork"
    assert fork.tokens_seen == 9 + 5 + 2 + 7 + 1 + 5 and session.tokens_seen == 11


def test_rollback(session: SleepSession) -> None:
    before, first = bits(session), session.snapshot()
    expected = go_on(session)
    middle, second = bits(session), session.snapshot()
    session.append([1])
    session.rollback()
    assert same(bits(session), middle)
    session.rollback(first)
    assert same(bits(session), before)
    session.append([8, 8])  # where the second snapshot has something else
    session.rollback(second)
    assert same(bits(session), middle)
    session.rollback(first)
    again = go_on(session)
    assert again[0] == expected[0] and same(again[1], expected[1])


def test_nothing_to_roll_back_to() -> None:
    with pytest.raises(ValueError, match=r"no snapshot .* call snapshot\(\)"):
        tiny_session().rollback()


@pytest.mark.parametrize("shared", [False, True])
def test_an_answer_that_is_thrown_away_leaves_nothing(session: SleepSession, shared: bool) -> None:
    """Although it goes through two windows; also while a snapshot shares the window."""
    if shared:
        session.snapshot()
    before = bits(session)
    answer = session.ask([1, 2, 3], 9, keep=False)
    assert same(bits(session), before) and (session.tokens_seen, session.window_fill) == (9, 3)
    kept = session.fork()
    assert kept.ask([1, 2, 3], 9) == answer and kept.tokens_seen == 9 + 3 + 9
    assert session.ask([1, 2, 3], 9, keep=False) == answer
    session.logprobs([4, 5, 6, 7, 8, 9])
    assert same(bits(session), before)


def test_a_kept_answer_has_been_read(session: SleepSession) -> None:
    other = session.fork()
    answer = session.ask([1, 2], 4)
    for token in [1, 2]:
        other.append([token])
    for token in answer:
        assert int(other.next_logits().argmax()) == token
        other.append([token])
    assert session.tokens_seen == other.tokens_seen
    for name, x in bits(session).items():
        torch.testing.assert_close(x, bits(other)[name], rtol=1e-5, atol=1e-5)


def test_reset_is_a_new_session(session: SleepSession) -> None:
    fresh = SleepSession(session.model, session.config)
    session.reset()
    assert same(bits(session), bits(fresh)) and session.tokens_seen == session.window_fill == 0
    assert go_on(session)[0] == go_on(fresh)[0]


def test_the_state_is_a_constant_number_of_bytes(session: SleepSession) -> None:
    before = session.nbytes
    assert before == SleepSession(session.model, session.config).nbytes
    for _ in range(3):
        session.append([1, 2, 3, 4])
        assert session.nbytes == before


def test_appending_is_all_or_nothing(session: SleepSession, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bits(session)
    with pytest.raises(ValueError, match="token 99 is not one of the model's, 0 to 10"):
        session.append([1, 2, 99])
    assert same(bits(session), before)
    monkeypatch.setattr(type(session.model), "write", lambda *_, **__: 1 / 0)  # in the sleep of the second window
    monkeypatch.setattr(type(session.model), "blocks", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.append(list(range(10)))
    assert same(bits(session), before)


def test_log_probabilities_are_those_of_the_tokens(session: SleepSession) -> None:
    tokens, other, expected = [1, 2, 3, 4, 5], session.fork(), []
    for token in tokens:
        expected.append(other.next_logits().log_softmax(-1)[token])
        other.append([token])
    torch.testing.assert_close(session.logprobs(tokens), torch.stack(expected), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="nothing has been read"):
        tiny_session().logprobs([1])


def test_a_stop_ends_the_answer(session: SleepSession) -> None:
    answer = session.ask([1], 6, temperature=1.0, seed=1, keep=False)
    at = next(i for i in range(1, 6) if answer[i] not in answer[:i])
    assert session.ask([1], 6, temperature=1.0, seed=1, keep=False, stop=answer[at]) == answer[:at]
    session.ask([1], 6, temperature=1.0, seed=1, stop=[answer[at]])
    assert session.tokens_seen == 9 + 1 + at, "the stop is not read"


def test_text() -> None:
    session = tiny_session(tokenizer=Letters())
    session.append("abcd")
    answer = session.ask("ef", 6, keep=False)
    assert len(answer) == 6 and isinstance(answer, str)
    assert session.ask("ef", 6, keep=False, stop=answer[2:4]) == answer[: answer.find(answer[2:4])]
    assert Letters().decode(session.ask([4, 5], 6, keep=False)) == answer
    for call in (lambda: tiny_session().append("abc"), lambda: tiny_session().ask([1], stop="a")):
        with pytest.raises(ValueError, match="text needs a tokenizer"):
            call()


def test_generating_is_lazy_and_exclusive(session: SleepSession) -> None:
    expected = session.ask([1], 5, keep=False)
    tokens = session.generate(5, prompt=[1])
    assert session.tokens_seen == 9, "nothing is read before the first token is wanted"
    found = [next(tokens), next(tokens)]
    for call in (lambda: session.append([1]), session.reset, session.sleep, session.fork):
        with pytest.raises(ValueError, match="being generated"):
            call()
    tokens.close()  # type: ignore[attr-defined]
    assert session.tokens_seen == 9 + 1 + 2, "what was given out is kept"
    assert found == expected[:2] and found + list(session.generate(3)) == expected


@pytest.mark.parametrize("keep", [True, False])
def test_an_error_in_the_middle_of_an_answer(session: SleepSession, keep: bool) -> None:
    before = bits(session)
    tokens = session.generate(5, prompt=[1], keep=keep)
    next(tokens)
    with pytest.raises(RuntimeError):
        tokens.throw(RuntimeError)  # type: ignore[attr-defined]
    assert same(bits(session), before) == (not keep)
    session.append([1])


def test_manual_sleep() -> None:
    session, other = tiny_session(policy="manual"), tiny_session()
    session.append([1, 2, 3, 4, 5])
    before = bits(session)
    for call in (lambda: session.append([6, 7]), lambda: session.ask([6], 3)):
        with pytest.raises(ValueError, match=r"room for 1, and policy=manual .* call sleep\(\)"):
            call()
    assert same(bits(session), before)
    session.append([6])
    assert session.window_fill == L and session.sleep() == 3 and session.sleep() == 0
    for i in range(1, 7):
        other.append([i])
    assert session.windows_closed == other.windows_closed == 1
    for name, x in session.memory.named_tensors().items():
        torch.testing.assert_close(x, other.memory.named_tensors()[name], rtol=1e-5, atol=1e-5)


def test_fewer_passes_than_carry_gradient_in_training_may_be_asked_for() -> None:
    session = tiny_session(sleep={"grad_passes": 2})
    session.append([1, 2, 3])
    assert session.sleep(1) == 1


def test_n_passes_of_one_sleep() -> None:
    by_argument, by_config = tiny_session(), tiny_session(sleep={"n_passes": 5})
    for session in (by_argument, by_config):
        session.append([1, 2, 3])
    assert by_argument.sleep(5) == by_config.sleep() == 5
    assert same(bits(by_argument), bits(by_config))
    by_argument.append([1])
    with pytest.raises(ValueError, match=r"sleep\.n_passes=0 must be at least 1"):
        by_argument.sleep(0)


def test_threads_take_turns() -> None:
    session, expected = tiny_session(), tiny_session()
    threads = [threading.Thread(target=lambda: [session.append([1, 2]) for _ in range(5)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for _ in range(20):
        expected.append([1, 2])
    assert same(bits(session), bits(expected))


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: SleepSession(own_model(), SleepConfig(L)), "OwnModel cannot; give it a HybridLM"),  # type: ignore[arg-type]
    (lambda: tiny_session(policy="never"), "policy='never' is unknown; use one of on_full"),
    (lambda: tiny_session({"summary_tokens": 2}), r"model\.summary_tokens=2 .* set it to 0"),
    (lambda: tiny_session(sleep={"wake_passes": 2}), r"sleep\.wake_passes=2 .* set it to 1"),
    (lambda: tiny_session(sleep={"retrieved_windows": 1}), r"sleep\.retrieved_windows=1 .* set it to 0"),
    (lambda: tiny_session(sleep={"loop": "1/2/3"}), "counts 6 blocks, the model has 4"),
    (lambda: tiny_session().append(torch.ones(2, 2)), "not a sequence of token ids"),
    (lambda: tiny_session().append([0.5]), "not a sequence of token ids"),  # type: ignore[list-item]
    (lambda: tiny_session().append([-1]), f"token -1 is not one of the model's, 0 to {VOCAB - 1}"),
    (lambda: tiny_session().ask([1], temperature=-1), "temperature=-1 must be"),
    (lambda: tiny_session().ask([1], top_k=0), "top_k=0 must be"),
    (lambda: tiny_session().ask([1], top_p=1.5), "top_p=1.5 must be"),
    (lambda: tiny_session().ask([1], -1), "max_new_tokens=-1 must be"),
    (lambda: tiny_session().ask([], 1), "nothing that an answer could go on from"),
]


@pytest.mark.parametrize("call", [c for c, _ in REFUSED], ids=[m[:20] for _, m in REFUSED])
def test_what_cannot_be_is_refused_in_a_sentence(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=dict(REFUSED)[call]):
        call()


def test_nothing_changes_nothing(session: SleepSession) -> None:
    before = bits(session)
    session.append([])
    assert session.ask([], 0) == [] and len(session.logprobs([])) == 0
    assert same(bits(session), before)


@pytest.mark.parametrize("compiled", [False, True])
def test_no_graph_is_kept(compiled: bool) -> None:
    """Nor by a model that is compiled for training, whose first memory requires a gradient."""
    model = tiny_model(VOCAB)
    model.compiled = compiled
    session = SleepSession(model, SleepConfig(L, 2))
    assert not any(x.requires_grad for x in bits(session).values())
    session.append(list(range(9)))
    assert not any(x.requires_grad for x in bits(session).values())
