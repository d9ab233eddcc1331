from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import SleepConfig
from tests.conftest import tiny_model

L, VOCAB = 6, 11


class Letters:
    """A tokenizer: token i is the i-th letter."""

    def encode(self, text: str) -> list[int]:
        return [ord(c) - ord("a") for c in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(ord("a") + i) for i in tokens)


def tiny_session(model: dict[str, Any] | None = None, sleep: dict[str, Any] | None = None, **more: Any) -> SleepSession:
    """Windows of 6 tokens, 3 passes; the model is the same at every call."""
    lm = tiny_model(**{"vocab_size": VOCAB, "pattern": "GAJA"} | (model or {}))
    return SleepSession(lm, SleepConfig(**{"window_size": L, "n_passes": 3} | (sleep or {})), **more)


def bits(session: SleepSession) -> dict[str, Tensor]:
    """All of its state that counts."""
    return {name: x.clone() for name, x in session._state.named_tensors().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """To the bit."""
    return a.keys() == b.keys() and all(torch.equal(x, b[name]) for name, x in a.items())


def go_on(session: SleepSession) -> tuple[list[int], dict[str, Tensor]]:
    """Much of what a session can do, over several windows."""
    session.append([3, 1, 4, 1, 5])
    answer = session.ask([9, 2], 7, temperature=1.0, seed=5)
    session.sleep(2)
    return answer + session.ask([6], 5), bits(session)


SESSIONS: dict[str, dict[str, Any]] = {
    "hard": {},
    "sliding": {"sleep": {"eviction": "sliding", "carry_conv_state": True}},
    "core": {"sleep": {"loop": "1/2/1", "pass_input": "inject"}},
}


@pytest.fixture(params=SESSIONS)
def session(request: pytest.FixtureRequest) -> SleepSession:
    """One that has read a window and a half."""
    one = tiny_session(**SESSIONS[request.param])
    one.append([1, 2, 3, 4, 5, 6, 7, 8, 9])
    return one
