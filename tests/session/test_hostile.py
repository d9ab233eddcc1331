"""What must not bend a session: every wrong argument is a sentence, and the session is to the bit as before."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.session import SessionPool, SleepSession, WritePolicy
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.testing.tiny import tiny_model
from tests.session.conftest import Letters, bits, same, tiny_session

CALLS: list[tuple[Callable[[SleepSession], Any], str]] = [
    (lambda s: s.append(None), "no token ids"),  # type: ignore[arg-type]
    (lambda s: s.append([[1], [2, 3]]), "no token ids"),  # type: ignore[list-item]
    (lambda s: s.append(["a"]), "no token ids"),  # type: ignore[list-item]
    (lambda s: s.append([10**30]), "no token ids"),
    (lambda s: s.append([1.5]), "not a sequence of token ids"),  # type: ignore[list-item]
    (lambda s: s.append([-1]), "token -1 is not one of the model's"),
    (lambda s: s.append({1: 2}), "no token ids"),  # type: ignore[arg-type]
    (lambda s: s.append("\ud800"), "token -34 is not one of the model's"),
    (lambda s: s.append([1], None), "source='None' must be a label"),  # type: ignore[arg-type]
    (lambda s: s.append([1], ""), "source='' must be a label"),
    (lambda s: s.append([1], "x" * 10**6), "must be a label of 1 to 1000 characters"),
    (lambda s: s.ask([1], source=3), "source='3' must be a label"),  # type: ignore[arg-type]
    (lambda s: s.ask([1], -1), "max_new_tokens=-1 must be a whole number from 0"),
    (lambda s: s.ask([1], 2.5), "max_new_tokens=2.5 must be a whole number"),  # type: ignore[arg-type]
    (lambda s: s.ask([1], True), "max_new_tokens=True must be a whole number"),
    (lambda s: s.ask([1], temperature=math.nan), "temperature=nan must be from 0"),
    (lambda s: s.ask([1], temperature=math.inf), "temperature=inf must be from 0"),
    (lambda s: s.ask([1], top_p=math.nan), "top_p=nan must be above 0"),
    (lambda s: s.ask([1], top_k=-3), "top_k=-3 must be at least 1"),
    (lambda s: s.ask([1], seed=2**64), "seed=18446744073709551616 must be from 0"),
    (lambda s: s.ask([1], seed=-1), "seed=-1 must be from 0"),
    (lambda s: s.sleep(10**9), "sleep.n_passes=1000000000 must be at least 1"),
    (lambda s: s.sleep(2.5), "sleep.n_passes=2.5 must be"),  # type: ignore[arg-type]
    (lambda s: s.sleep(True), "sleep.n_passes=True must be"),
    (lambda s: s.logprobs([99]), "token 99 is not one of the model's"),
    (lambda s: WritePolicy({"a": 10**9}), "may have 1000000000 passes"),
]


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_wrong_arguments(call: tuple[Callable[[SleepSession], Any], str]) -> None:
    session = tiny_session(tokenizer=Letters())
    session.append([1, 2, 3])
    before = bits(session)
    with pytest.raises(ValueError) as caught:
        call[0](session)
    assert call[1] in str(caught.value) and len(str(caught.value)) < 400
    assert same(bits(session), before)
    assert len(session.ask([1], 2, keep=False)) == 2, "nothing is locked"


def test_a_very_low_temperature_is_the_likeliest() -> None:
    session = tiny_session()
    session.append([1, 2, 3])
    assert session.ask([4], 5, temperature=1e-300, seed=1, keep=False) == session.ask([4], 5, keep=False)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite(monkeypatch: pytest.MonkeyPatch, temperature: float, bad: float) -> None:
    session, twin = tiny_session(), tiny_session()
    for one in (session, twin):
        one.append([1, 2, 3])
    broken = torch.full((11,), bad)
    monkeypatch.setattr(session, "_next_logits", lambda: broken)
    with pytest.raises(ValueError, match=r"the logits are not finite, .* roll back or reset the session"):
        session.ask([4], 3, temperature=temperature)
    twin.append([4])
    assert same(bits(session), bits(twin)), "the question is kept, once"


def test_no_plain_file(tmp_path: Path) -> None:
    model = tiny_session().model
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match="is no plain file; give a file written by"):
            SleepSession.load(path, model)
    for path in (tmp_path / "none", tmp_path / "link"):
        with pytest.raises(OSError):
            SleepSession.load(path, model)
    with pytest.raises(OSError):
        tiny_session().save(tmp_path / "fifo" / "x")


def test_a_thread_that_would_wait_for_itself(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=11).eval()
    with SessionPool(model, SleepConfig(6, 2), 10**7, tmp_path) as pool:
        name = pool.create("a")
        with pool.use("a", name) as session:
            for call in (lambda: pool.use("a", name).__enter__(), lambda: pool.snapshot("a", name)):
                with pytest.raises(ValueError, match="this thread uses that session already"):
                    call()
            session.append([1, 2])
        for owner in ("..", "", "a/b", "\u202e", "x" * 65, "a\n"):
            with pytest.raises(ValueError, match="must be 1 to 64 letters"):
                pool.create(owner)
        assert pool.names("a") == [name]
