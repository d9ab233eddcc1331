"""Streamed answers whose client goes away, whose server ends, or which wait for a long sleep."""

import asyncio
import itertools
import json
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.serve import streams
from sleep_lightning.serve.app import create_app
from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.tokens import BearerTokens
from sleep_lightning.session import SessionPool, SleepSession
from sleep_lightning.session.core import SessionCore
from tests.serve.conftest import MODEL, TOKENS, make_pool

MOST = 400
"""Tokens of an answer: as many as would take seconds."""


class Client:
    """Speaks ASGI, and may go away."""

    def __init__(self, app: Any) -> None:
        self.app, self.gone, self.said = app, asyncio.Event(), b""
        self.status = 0
        self.heard: Callable[[], None] = lambda: None

    async def post(self, path: str, **body: Any) -> None:
        token = next(token for token, owner in TOKENS.items() if owner == "alice")
        headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("x", 1),
            "client": ("y", 2), "asgi": {"version": "3.0", "spec_version": "2.3"},
        }  # fmt: skip
        sent = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

        async def receive() -> Any:
            if (message := next(sent, None)) is not None:
                return message
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.status = message.get("status", self.status)
            self.said += message.get("body", b"")
            self.heard()

        await self.app(scope, receive, send)

    @property
    def tokens(self) -> list[int]:
        return [content["token"] for kind, content in self.events if kind == "token"]

    @property
    def events(self) -> list[tuple[str, Any]]:
        blocks = [block.split(b"\n") for block in self.said.split(b"\n\n") if block.startswith(b"event: ")]
        return [(kind[7:].decode(), json.loads(data[6:])) for kind, data in blocks]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionPool]:
    """Of sessions that take 5 ms for a token."""
    quick = SessionCore._next_logits

    def slow(self: SessionCore) -> Any:
        time.sleep(0.005)
        return quick(self)

    monkeypatch.setattr(SessionCore, "_next_logits", slow)
    with make_pool(tmp_path) as pool:
        yield pool


def serving(pool: SessionPool, stopping: threading.Event | None = None) -> Any:
    return create_app(pool, BearerTokens(TOKENS), Limits(new_tokens=MOST), stopping)


def begun(pool: SessionPool) -> tuple[str, str]:
    name = pool.create("alice")
    with pool.use("alice", name) as session:
        session.append([1, 2, 3])
    return name, f"/v1/sessions/{name}"


def run(coroutine: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await coroutine

    asyncio.run(limited())


def check(pool: SessionPool, name: str, answer: list[int]) -> None:
    """The session has read a question, [4], and an answer, and nothing else; and is free."""
    alone = SleepSession(MODEL, pool.config)
    for token in ([1, 2, 3], [4], *([token] for token in answer)):
        alone.append(token)
    with pool.use("alice", name) as session:
        assert session.tokens_seen == alone.tokens_seen
        torch.testing.assert_close(session.logprobs([5, 6]), alone.logprobs([5, 6]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("way", ["listens", "cannot send"])
def test_a_client_that_goes_ends_the_answer(pool: SessionPool, keep: bool, way: str) -> None:
    name, path = begun(pool)
    app = serving(pool)

    async def client_goes() -> None:
        one, other = Client(app), Client(app)

        def heard() -> None:
            if len(one.tokens) >= 3:
                one.gone.set()
                if way == "cannot send":
                    raise OSError("the connection is gone")

        one.heard = heard
        await one.post(f"{path}/generate", tokens=[4], max_new_tokens=MOST, keep=keep)
        assert 3 <= len(one.tokens) < MOST / 4 and not any(kind == "done" for kind, _ in one.events)
        await other.post(f"{path}/append", tokens=[])  # the next in turn
        stands = json.loads(other.said)
        assert other.status == 200
        made = stands["tokens_seen"] - 4
        if keep:
            assert len(one.tokens) <= made < len(one.tokens) + MOST / 4, "it ends soon"
        else:
            assert stands["tokens_seen"] == 3

    run(client_goes())
    with pool.use("alice", name) as session:
        seen = session.tokens_seen
    if keep:
        asked = SleepSession(MODEL, pool.config)
        asked.append([1, 2, 3])
        check(pool, name, asked.ask([4], seen - 4))


def test_a_client_that_goes_before_its_turn_leaves_nothing(pool: SessionPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SILENCE", 0.02)
    name, path = begun(pool)
    app = serving(pool)

    async def two_clients() -> None:
        first, second = Client(app), Client(app)
        second.heard = second.gone.set
        working = asyncio.create_task(first.post(f"{path}/generate", tokens=[4], max_new_tokens=40))
        while not first.said:
            await asyncio.sleep(0.001)
        await second.post(f"{path}/generate", tokens=[4, 4, 4], max_new_tokens=40)
        assert second.status == 200 and second.said.startswith(streams.WORKING) and not second.events
        await working
        assert first.events[-1][1]["complete"] and len(first.tokens) == 40

    run(two_clients())
    with pool.use("alice", name) as session:
        assert session.tokens_seen == 44


def test_a_comment_while_it_sleeps(pool: SessionPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SILENCE", 0.02)
    _, path = begun(pool)
    app, lane, wake = serving(pool), pool.engine._asleep, threading.Event()
    close = lane._run
    monkeypatch.setattr(lane, "_run", lambda items: (wake.wait(30), close(items))[1])

    async def streamed() -> None:
        client = Client(app)
        client.heard = lambda: wake.set() if client.said.count(streams.WORKING) > 1 else None
        await client.post(f"{path}/generate", tokens=[4, 5], max_new_tokens=4)
        assert wake.is_set() and client.said.count(streams.WORKING) > 1
        kind, done = client.events[-1]
        assert kind == "done" and done["tokens"] == client.tokens and len(client.tokens) == 4

    run(streamed())


@pytest.mark.parametrize("way", ["generate", "ask"])
def test_a_server_that_ends_ends_answers(pool: SessionPool, way: str) -> None:
    name, path = begun(pool)
    stopping = threading.Event()
    app = serving(pool, stopping)

    async def told_to_end() -> None:
        client = Client(app)
        working = asyncio.create_task(client.post(f"{path}/{way}", tokens=[4], max_new_tokens=MOST))
        while (way == "generate" and len(client.tokens) < 2) or pool.engine._members < 1:
            await asyncio.sleep(0.001)
        stopping.set()
        await working
        said = client.events[-1][1] if way == "generate" else json.loads(client.said)
        assert client.status == 200 and not said["complete"] and len(said["tokens"]) < MOST / 4
        check(pool, name, said["tokens"])

    run(told_to_end())


def test_errors_after_the_first_event_are_events(pool: SessionPool, monkeypatch: pytest.MonkeyPatch) -> None:
    name, path = begun(pool)
    app = serving(pool)
    logits, calls = SessionCore._next_logits, itertools.count()
    monkeypatch.setattr(SessionCore, "_next_logits", lambda self: logits(self) * (math.nan if next(calls) == 3 else 1))

    async def fails() -> None:
        client = Client(app)
        await client.post(f"{path}/generate", tokens=[4], max_new_tokens=9, temperature=1.0)
        kind, said = client.events[-1]
        assert client.status == 200 and kind == "error" and "roll back or reset the session" in said["error"]
        assert len(client.tokens) == 3

    run(fails())
    with pool.use("alice", name) as session:
        assert session.tokens_seen == 3 + 1 + 3
