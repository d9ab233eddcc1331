"""What a client may send to break the server: it is refused in a sentence, and the session is as it was."""

import asyncio
import errno
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sleep_lightning.serve.app import create_app
from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.tokens import BearerTokens
from sleep_lightning.session import SessionPool, SleepSession, saved, state_file
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks.words import Words
from tests.serve.conftest import MODEL, TOKENS, VOCAB, L, Tenants, make_pool

DIGITS = "9" * 5000

BODIES: list[tuple[str, bytes, str]] = [
    ("ask", b'{"text": "a", "max_new_tokens": %s}' % DIGITS.encode(), ""),
    ("append", b'{"tokens": [%s]}' % DIGITS.encode(), ""),
    ("append", b'{"tokens": [-1]}', "greater than or equal to 0"),
    ("append", b'{"tokens": [1.5]}', "valid integer"),
    ("append", b'{"tokens": [true]}', "valid integer"),
    ("append", b'{"tokens": null, "text": null}', "give tokens or text"),
    ("append", b'{"text": "a", "text": {}}', "valid string"),
    ("append", b'{"text": "\\ud800"}', ""),
    ("append", b'{"text": "a\\u0000b"}', "no word of the task"),
    ("append", '{"text": "\u202e\u0000☃"}'.encode(), ""),
    ("append", b'{"tokens": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", ""),
    ("append", b'{"text": "a", "source": "%s"}' % (b"x" * 65), "at most 64 characters"),
    ("ask", b'{"text": "a", "temperature": NaN}', ""),
    ("ask", b'{"text": "a", "temperature": 1e400}', ""),
    ("ask", b'{"text": "a", "temperature": -0.5}', "greater than or equal to 0"),
    ("ask", b'{"text": "a", "top_p": NaN}', ""),
    ("ask", b'{"text": "a", "top_k": 0}', "greater than or equal to 1"),
    ("ask", b'{"text": "a", "seed": -1}', "greater than or equal to 0"),
    ("ask", b'{"text": "a", "max_new_tokens": -1}', "greater than or equal to 0"),
    ("ask", b'{"text": "a", "stop": [[]]}', ""),
    ("ask", b'{"text": "a", "stop": [%s]}' % b",".join([b'"x"'] * 17), "at most 16 items"),
    ("sleep", b'{"n_passes": 1e3}', ""),
    ("sleep", b'{"n_passes": %s}' % DIGITS.encode(), ""),
    ("forget", b'{"source": "\\u001b[2J"}', "match pattern"),
    ("forget", b'{"source": ""}', "at least 1 character"),
]


def test_bodies(tenants: Tenants) -> None:
    id = tenants.new()
    tenants.post("alice", f"{id}/append", text="a b")
    before = tenants.post("alice", f"{id}/ask", text="c", max_new_tokens=3, keep=False).json()["tokens"]
    for way, body, said in BODIES:
        got = tenants.post_json("alice", f"{id}/{way}", body)
        assert got.status_code in (422, 429), (way, body[:80], got.text[:200])
        assert list(got.json()) == ["error"] and said in got.json()["error"] and len(got.text) < 700, got.text
    assert tenants.get("alice", id).json()["tokens_seen"] == 2
    assert tenants.post("alice", f"{id}/ask", text="c", max_new_tokens=3, keep=False).json()["tokens"] == before


@pytest.mark.parametrize(
    "id", ["%2e%2e%2fbob", "x" * 5000, "%00", "%F0%9F%92%A9", "0" * 31, "..", "lock", "-1", "%0d%0aX: y"]
)
def test_names_of_no_session(tenants: Tenants, id: str) -> None:
    for method, way in (("GET", ""), ("POST", "/sleep"), ("GET", "/state"), ("DELETE", "")):
        got = tenants.call("alice", method, f"/v1/sessions/{id}{way}")
        assert got.status_code in (404, 405), got.text
        assert list(got.json()) == ["error"]


def test_rules_of_a_new_session(tenants: Tenants) -> None:
    bodies: list[tuple[dict[str, Any], int]] = [
        ({"writes": {"a": 10**9}}, 429),
        ({"writes": {"a": -1}}, 422),
        ({"writes": {"a": 1.5}}, 422),
        ({"writes": {str(i): 1 for i in range(65)}}, 422),
        ({"ttl": 0}, 422),
        ({"ttl": 1e300}, 422),
        ({"keep_texts": "yes"}, 422),
        ({"policy": "manual"}, 422),
    ]
    for body, status in bodies:
        got = tenants.post("alice", "", **body)
        assert got.status_code == status and list(got.json()) == ["error"], (body, got.text)
    assert tenants.get("alice").json() == {"sessions": []}


def test_bodies_of_an_owner_are_limited_together(tmp_path: Path) -> None:
    """Many connections, each with a body that may be sent: one tenant cannot fill the memory."""

    async def attack() -> None:
        with make_pool(tmp_path) as pool:
            app = create_app(pool, BearerTokens(TOKENS), Limits(state_bytes=1000, body_bytes=1000))
            told, gone = Counter[int](), asyncio.Event()

            async def upload(owner: str, bytes_sent: int) -> None:
                token = next(token for token, of in TOKENS.items() if of == owner)
                parts = iter([{"type": "http.request", "body": b"x" * bytes_sent, "more_body": True}])

                async def receive() -> Any:
                    return next(parts, None) or (await gone.wait(), {"type": "http.disconnect"})[1]

                async def send(message: Any) -> None:
                    told[message.get("status", 0)] += 1

                headers = [(b"authorization", f"Bearer {token}".encode())]
                scope = {
                    "type": "http",
                    "method": "POST",
                    "path": "/v1/states",
                    "headers": headers,
                    "query_string": b"",
                }
                await app(scope | {"raw_path": b"/v1/states", "root_path": "", "http_version": "1.1"}, receive, send)

            slow = [asyncio.create_task(upload("alice", 900)) for _ in range(10)]
            await asyncio.sleep(0.05)
            assert told[429] == 6, "four of them are waited for"
            other = asyncio.create_task(upload("bob", 900))
            await asyncio.sleep(0.05)
            assert told[429] == 6, "others are not refused for that"
            gone.set()
            await asyncio.gather(*slow, other)
            assert told[429] == 6 and told[422] == 0 and not app._held, "those that went are not answered"

    asyncio.run(attack())


def test_a_full_disk_while_another_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SleepConfig(window_size=L, n_passes=3)
    each = SleepSession(MODEL, config).nbytes
    with (
        SessionPool(MODEL, config, 2 * each, tmp_path, tokenizer=Words(VOCAB)) as pool,
        TestClient(create_app(pool, BearerTokens(TOKENS)), raise_server_exceptions=False) as client,
    ):
        tenants = Tenants(client, pool)
        ids = [tenants.new("alice"), tenants.new("bob")]
        for id, who in zip(ids, ("alice", "bob"), strict=True):
            tenants.post(who, f"{id}/append", text="a b c")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "file"))

        with monkeypatch.context() as patch:
            patch.setattr(state_file, "write_whole", full)
            refused = tenants.post("alice", "")
            assert refused.status_code == 507 and "free some space" in refused.json()["error"]
            assert str(tmp_path) not in refused.text
            assert tenants.post("bob", f"{ids[1]}/append", text="d").json()["tokens_seen"] == 4
        assert tenants.post("alice", "").status_code == 201
        assert [tenants.get(w, id).json()["tokens_seen"] for w, id in zip(("alice", "bob"), ids, strict=True)] == [3, 4]


@pytest.mark.parametrize(("way", "status"), [("", 201), ("/sleep", 202)])
def test_a_client_that_goes_in_the_middle_of_its_body_has_asked_for_nothing(
    tenants: Tenants, way: str, status: int
) -> None:
    id = tenants.new()
    tenants.post("alice", f"{id}/append", tokens=[1, 2])
    path = f"/v1/sessions{id}{way}" if way else "/v1/sessions"
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def request(*messages: dict[str, Any]) -> None:
        parts = iter(messages)

        async def receive() -> Any:
            return next(parts)

        headers = [(b"authorization", b"Bearer alice-token-0123456789"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": headers}
        scope |= {"query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http", "server": ("x", 1)}
        await tenants.client.app(scope, receive, send)  # type: ignore[arg-type]

    part = {"type": "http.request", "body": b"", "more_body": True}
    tenants.client.portal.call(request, part, {"type": "http.disconnect"})  # type: ignore[union-attr]
    assert not said and tenants.get("alice").json() == {"sessions": [id[1:]]}
    stands = tenants.get("alice", id).json()
    assert (stands["window_fill"], stands["windows_closed"], stands["queued"]) == (2, 0, 0)
    tenants.client.portal.call(request, part, {**part, "more_body": False})  # type: ignore[union-attr]
    assert said[0]["status"] == status
    assert 'status="499"' in tenants.call("alice", "GET", "/metrics").text


FORGED: dict[str, tuple[Callable[[dict[str, Any]], None], int, str]] = {
    "passes of a sleep": (lambda h: h["events"][1].update(n_passes=4096), 429, "4096 passes are more than 8"),
    "passes of a source": (lambda h: h.update(writes={"passes": {"a": 9}, "others": 0}), 429, "9 passes are more"),
    "passes of all windows": (lambda h: h["sleep"].update(n_passes=9), 429, "9 passes are more than 8"),
    "many windows": (
        lambda h: h.update(keep_texts=False, lines=h["lines"][:1] * 51), 429, "closes at most 50 windows; reset it"
    ),
    "an event's tokens": (lambda h: h["events"][0].update(tokens=[10**6] * 8), 422, "token 1000000 is not one"),
    "the last tokens": (lambda h: h["last"].update(tokens=[10**6]), 422, "token 1000000 is not one"),
    "the last change": (lambda h: h["last"].update(change=[]), 422, "last is not of a window"),
    "a window for ever": (
        lambda h: h.update(policy="manual", lines=h["lines"][:1]), 422, "events read 8 tokens into a window"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_state_with_a_checksum_of_its_own(tenants: Tenants, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, status, said = FORGED[what]
    id = tenants.new(keep_texts=True)
    tenants.post("alice", f"{id}/append", tokens=[1] * 8)
    tenants.post("alice", f"{id}/sleep", n_passes=2, wait=True)
    assert tenants.call("bob", "POST", "/v1/states", content=tenants.get("alice", f"{id}/state").content).is_success

    def forged(path: Path, header: dict[str, Any], tensors: Any) -> None:
        change(header)
        state_file.write_state(path, header, tensors)

    monkeypatch.setattr(saved, "write_state", forged)
    with tenants.pool.use("alice", id[1:]) as session:
        session.save(tenants.pool.directory / "forged")
    got = tenants.call("bob", "POST", "/v1/states", content=(tenants.pool.directory / "forged").read_bytes())
    assert got.status_code == status and said in got.json()["error"], got.text
    assert len(tenants.get("bob").json()["sessions"]) == 1


def test_headers(tenants: Tenants) -> None:
    id, token = tenants.new(), "alice-token-0123456789"
    for headers in (
        {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"},
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=utf-7"},
        {"Authorization": f"Bearer {token}", "Content-Type": "\x7f"},
    ):
        got = tenants.client.post(f"/v1/sessions{id}/append", content=b'{"text": "a"}', headers=headers)
        assert got.status_code in (200, 422), got.text
    for headers in (
        {"Authorization": f"Bearer {token} x"},
        {"Authorization": b"Bearer \xff"},
        {"Authorization": token},
    ):
        assert tenants.client.get("/v1/sessions", headers=headers).status_code == 401  # type: ignore[arg-type]
    huge = {"Authorization": f"Bearer {token}", "Content-Length": "9" * 30}
    assert tenants.client.post(f"/v1/sessions{id}/append", headers=huge).status_code == 413
    listed = json.loads(tenants.get("alice").text)
    assert listed == {"sessions": [id[1:]]}
