"""What a client may send to break the server: it is refused in a sentence, and the session is as it was."""

import json
from typing import Any

import pytest

from tests.serve.conftest import Tenants

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
