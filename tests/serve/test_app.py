"""Sessions over HTTP: what a client can do, may not do, and is told."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.serve import app as app_module
from sleep_lightning.serve.limits import LimitReached
from sleep_lightning.serve.work import Work
from sleep_lightning.session import SleepSession
from tests.serve.conftest import MODEL, TOKENS, L, Tenants, make_pool

TEXT = "a b c d e f g h"


def alone(tenants: Tenants) -> SleepSession:
    return SleepSession(MODEL, tenants.pool.config, tenants.pool.tokenizer)


def events(text: str) -> list[tuple[str, Any]]:
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


def test_read_ask_sleep_and_the_bill(tenants: Tenants) -> None:
    id, one = tenants.new(), alone(tenants)
    said = tenants.post("alice", f"{id}/append", text=TEXT, source="book").json()
    one.append(TEXT, "book")
    assert (said["tokens_seen"], said["window_fill"], said["windows_closed"], said["bytes"]) == (8, 2, 1, one.nbytes)
    answer = tenants.post("alice", f"{id}/ask", text="c d", max_new_tokens=5, keep=False).json()
    assert answer["text"] == one.ask("c d", 5, keep=False) == " ".join("abcdefghijk"[i] for i in answer["tokens"])
    assert tenants.post("alice", f"{id}/ask", tokens=[2, 3], max_new_tokens=4).json()["tokens"] == one.ask([2, 3], 4)
    slept = tenants.post("alice", f"{id}/sleep", n_passes=5, wait=True)
    assert slept.status_code == 200 and one.sleep(5) == 5
    stands = tenants.get("alice", id).json()
    assert stands["wake"]["flops"] == one.cost.wake.flops and stands["sleep"]["flops"] == one.cost.sleep.flops
    assert [w["sources"] for w in tenants.get("alice", f"{id}/provenance").json()["windows"]] == [
        line.sources for line in one.provenance()
    ]
    heads = tenants.get("alice", f"{id}/inspect").json()["heads"]
    torch.testing.assert_close(
        torch.tensor([head["norm"] for head in heads]), torch.tensor([h.norm for h in one.inspect().heads]), rtol=1e-4,
        atol=1e-5,
    )  # fmt: skip


def test_an_answer_is_streamed(tenants: Tenants) -> None:
    id, one = tenants.new(), alone(tenants)
    for owner in (tenants, None):
        tenants.post("alice", f"{id}/append", text=TEXT) if owner else one.append(TEXT)
    got = tenants.post("alice", f"{id}/generate", text="c", max_new_tokens=6, temperature=1.0, seed=3)
    assert got.status_code == 200 and got.headers["content-type"].startswith("text/event-stream")
    *tokens, (kind, done) = events(got.text)
    expected = list(one.generate(6, prompt="c", temperature=1.0, seed=3))
    assert kind == "done" and done["tokens"] == expected == [content["token"] for _, content in tokens]
    assert "".join(content["text"] for _, content in tokens) == done["text"]
    assert tenants.get("alice", id).json()["tokens_seen"] == one.tokens_seen == 15
    for body, status in (({"text": "z"}, 422), ({"max_new_tokens": 21}, 429), ({"text": "a", "tokens": [1]}, 422)):
        got = tenants.post("alice", f"{id}/generate", **body)
        assert got.status_code == status and list(got.json()) == ["error"]
    assert tenants.post("alice", f"{tenants.new()}/generate").status_code == 422  # nothing to go on from


def test_fork_snapshot_rollback_forget_reset_and_delete(tenants: Tenants) -> None:
    id = tenants.new(keep_texts=True, writes={"book": 3, "web": 1})
    tenants.post("alice", f"{id}/append", text=TEXT, source="book")
    asked = {"text": "c", "max_new_tokens": 6, "keep": False}
    clean = tenants.post("alice", f"{id}/ask", **asked).json()["tokens"]
    assert tenants.post("alice", f"{id}/rollback").status_code == 422
    assert tenants.post("alice", f"{id}/snapshot").status_code == 204
    tenants.post("alice", f"{id}/append", text=TEXT, source="web")
    twin = "/" + tenants.post("alice", f"{id}/fork").json()["id"]
    assert tenants.post("alice", f"{id}/rollback").json()["tokens_seen"] == 8
    assert tenants.post("alice", f"{id}/ask", **asked).json()["tokens"] == clean
    assert tenants.get("alice", twin).json()["tokens_seen"] == 16
    assert tenants.post("alice", f"{twin}/forget", source="web").json() == {"tokens": 8}
    assert tenants.post("alice", f"{twin}/ask", **asked).json()["tokens"] == clean
    assert tenants.post("alice", f"{id}/reset").json()["tokens_seen"] == 0
    assert sorted(tenants.get("alice").json()["sessions"]) == sorted((id[1:], twin[1:]))
    assert tenants.call("alice", "DELETE", f"/v1/sessions{twin}").status_code == 204
    assert tenants.get("alice", twin).status_code == 404
    assert tenants.get("alice").json()["sessions"] == [id[1:]]


def test_a_state_goes_out_and_in(tenants: Tenants) -> None:
    id = tenants.new()
    tenants.post("alice", f"{id}/append", text=TEXT)
    state = tenants.get("alice", f"{id}/state").content
    again = tenants.call("bob", "POST", "/v1/states", content=state)
    assert again.status_code == 201
    asked = {"text": "c", "max_new_tokens": 6}
    assert (
        tenants.post("bob", f"/{again.json()['id']}/ask", **asked).json()["tokens"]
        == tenants.post("alice", f"{id}/ask", **asked).json()["tokens"]
    )
    for bad in (state[:-3], b"", b"{}", state.replace(b"GAJA", b"GAJJ").replace(b'n_passes\\": 3', b'n_passes\\": 9')):
        refused = tenants.call("bob", "POST", "/v1/states", content=bad)
        assert refused.status_code == 422 and str(tenants.pool.directory) not in refused.text
    greedy = SleepSession(MODEL, tenants.pool.config, writes={"a": 4000})
    greedy.save(tenants.pool.directory / "greedy")
    content = (tenants.pool.directory / "greedy").read_bytes()
    assert tenants.call("bob", "POST", "/v1/states", content=content).status_code == 429
    assert len(tenants.get("bob").json()["sessions"]) == 1


def test_tenants_do_not_see_each_other(tenants: Tenants) -> None:
    id = tenants.new("alice")
    tenants.post("alice", f"{id}/append", text=TEXT)
    tenants.post("alice", f"{id}/snapshot")
    ways = [("GET", w, None) for w in ("", "/inspect", "/provenance", "/state")] + [("DELETE", "", None)]
    ways += [("POST", f"/{w}", {}) for w in ("sleep", "fork", "snapshot", "rollback", "reset")]
    ways += [("POST", "/append", {"text": "a"}), ("POST", "/ask", {"text": "a"}), ("POST", "/generate", {"text": "a"})]
    ways += [("POST", "/append", {"text": "a", "wait": False}), ("POST", "/forget", {"source": "x"})]
    for method, way, body in ways:
        said = []
        for name in (id, "/" + "0" * 32):
            got = tenants.call("bob", method, f"/v1/sessions{name}{way}", **({} if body is None else {"json": body}))
            said.append((got.status_code, got.content))
        assert said[0] == said[1], way
        assert said[0][0] == 404 and id[1:].encode() not in said[0][1], way
    assert tenants.get("bob").json() == {"sessions": []}
    assert tenants.get("alice", id).json()["tokens_seen"] == 8
    metrics = tenants.call("bob", "GET", "/metrics").text
    assert id[1:] not in metrics and "alice" not in metrics


def test_no_token_no_answer(tenants: Tenants) -> None:
    client, good = tenants.client, next(iter(TOKENS))
    for header in ({}, {"Authorization": good}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {good}x"}):
        for path in ("/v1/sessions", "/metrics", "/v1/sessions/x/state", "/nothing"):
            got = client.get(path, headers=header)
            assert got.status_code == 401 and got.headers["www-authenticate"] == "Bearer" and "error" in got.json()
        assert client.post("/v1/sessions", headers=header, content=b"x" * 2**21).status_code == 401
    assert client.get("/health").json() == {"status": "ok"}
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/sessions", "/v1/sessions/{id}/generate", "/v1/states", "/health"} <= paths.keys()
    assert client.get("/docs", headers={"Authorization": f"Bearer {good}"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/append", {"tokens": [1, 11]}, 422, "token 11 is not one of the model's, 0 to 10"),
        ("/append", {"tokens": [2**40]}, 422, "body.tokens.0: Input should be less than"),
        ("/append", {"tokens": ["1"]}, 422, "body.tokens.0: Input should be a valid integer"),
        ("/append", {"text": "a z"}, 422, "'z' is no word of the task"),
        ("/append", {}, 422, "give tokens or text, and not both"),
        ("/append", {"text": "a", "sauce": "x"}, 422, "body.sauce: Extra inputs are not permitted"),
        ("/append", {"text": "a", "source": "x\n"}, 422, "body.source: String should match"),
        ("/append", {"tokens": [0] * 201}, 429, "201 tokens are more than 200 at once; send fewer"),
        ("/append", {"tokens": [0] * 199, "wait": False, "text": "a"}, 422, "give tokens or text"),
        ("/ask", {"text": "a", "max_new_tokens": 21}, 429, "max_new_tokens=21 is more than 20; ask for fewer"),
        ("/ask", {"text": "a", "temperature": 1e-9}, 422, "must be 0 (the likeliest token) or from 0.01"),
        ("/ask", {"text": "a", "top_p": 0}, 422, "body.top_p: Input should be greater than 0"),
        ("/ask", {"text": "a", "seed": 2**64}, 422, "body.seed: Input should be less than"),
        ("/ask", {}, 422, "there is nothing that an answer could go on from"),
        ("/sleep", {"n_passes": 9}, 429, "9 passes are more than 8; ask for fewer"),
        ("/sleep", {"n_passes": 0}, 422, "body.n_passes: Input should be greater than or equal to 1"),
        ("/forget", {"source": "x"}, 422, "begin the session with keep_texts=True"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(tenants: Tenants, path: str, body: dict[str, Any], status: int, said: str) -> None:
    got = tenants.post("alice", tenants.new() + path, **body)
    assert got.status_code == status and list(got.json()) == ["error"] and said in got.json()["error"]


def test_bodies_that_are_no_json(tenants: Tenants) -> None:
    id = tenants.new()
    deep = b'{"text":' + b"[" * 100_000
    for body in (b"{", b"\xff\xfe", b"[1]", b'{"tokens": [1e999]}', b'{"text": "\\ud800"}', deep):
        for got in (
            tenants.call("alice", "POST", f"/v1/sessions{id}/append", content=body),
            tenants.post_json("alice", f"{id}/append", body),
        ):
            assert got.status_code == 422 and list(got.json()) == ["error"]
    long = tenants.call("alice", "POST", f"/v1/sessions{id}/append", content=b" " * (2**20 + 1))
    chunks = tenants.call("alice", "POST", f"/v1/sessions{id}/append", content=(b" " * 2**18 for _ in range(5)))
    assert long.status_code == chunks.status_code == 413


def test_sessions_and_windows_are_limited(tenants: Tenants) -> None:
    id = tenants.new()
    for _ in range(4):
        tenants.new()
    for refused in (tenants.post("alice", ""), tenants.post("alice", f"{id}/fork")):
        assert refused.status_code == 429 and "you have 5 sessions already" in refused.json()["error"]
        assert refused.headers["retry-after"] == "1"
    assert tenants.post("bob", "").status_code == 201
    for _ in range(2):
        assert tenants.post("alice", f"{id}/append", tokens=[1] * 25 * L).status_code == 200
    refused = tenants.post("alice", f"{id}/append", tokens=[1] * L)
    assert refused.status_code == 429 and "closes at most 50 windows; reset it" in refused.json()["error"]


def test_a_queued_sleep_holds_nobody_up(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep, wake = threading.Event(), threading.Event()
    lane = tenants.pool.engine._asleep
    close = lane._run

    def slow(items: Any) -> Any:
        if items[0].config.n_passes == 7:
            asleep.set()
            assert wake.wait(60)
        return close(items)

    monkeypatch.setattr(lane, "_run", slow)
    id, other = tenants.new("alice"), tenants.new("alice")
    tenants.post("alice", f"{id}/append", text="a b")
    queued = tenants.post("alice", f"{id}/sleep", n_passes=7)
    assert queued.status_code == 202 and queued.json() == {"queued": 1}
    assert asleep.wait(60)
    later = tenants.post("alice", f"{id}/append", text="c d e", wait=False)
    assert later.status_code == 202 and later.json() == {"queued": 2}
    assert tenants.post("alice", f"{other}/append", text=TEXT).json()["windows_closed"] == 1
    assert tenants.post("bob", f"{tenants.new('bob')}/append", text=TEXT).json()["windows_closed"] == 1
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(tenants.get, "alice", id)  # its own sleep comes first
        assert not waits.done()
        wake.set()
        stands = waits.result(60).json()
    assert (stands["tokens_seen"], stands["windows_closed"], stands["window_fill"]) == (5, 1, 3)


def test_what_fails_in_the_queue_is_told(tenants: Tenants) -> None:
    id = tenants.new()
    for _ in range(2):
        assert tenants.post("alice", f"{id}/append", tokens=[1] * 25 * L).status_code == 200
    tenants.post("alice", f"{id}/append", tokens=[1] * 2 * L, wait=False)
    assert "closes at most 50 windows" in (tenants.get("alice", id).json()["last_error"] or "")
    tenants.post("alice", f"{id}/append", tokens=[1], wait=False)
    assert tenants.get("alice", id).json()["last_error"] is None


def test_whatever_fails_in_the_queue_is_told_without_places(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    id = tenants.new()
    place = tenants.pool.directory
    errors = {
        RuntimeError("CUDA out of memory"): "an error of the server; its log says more",
        ValueError(f"{place}/alice/x is damaged"): "alice/x is damaged",
        OSError(5, "input/output error", f"{place}/alice/x"): "a file of the server cannot be used",
    }
    for error, said in errors.items():

        def fails(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(SleepSession, "append", fails)
            assert tenants.post("alice", f"{id}/append", tokens=[1], wait=False).status_code == 202
            assert tenants.get("alice", id).json()["last_error"] == said
    assert "CUDA out of memory" in caplog.text and "Task exception" not in caplog.text


def test_an_error_in_a_stream_tells_no_places(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    id, logits, calls = tenants.new(), SleepSession._next_logits, iter(range(99))
    place, broken = f"{tenants.pool.directory}/alice/x", RuntimeError("broken")

    def failing(self: SleepSession) -> torch.Tensor:
        if next(calls) in (2, 5):
            raise ValueError(f"{place} is damaged") if calls.__length_hint__() > 95 else broken
        return logits(self)

    monkeypatch.setattr(SleepSession, "_next_logits", failing)
    for said in ("alice/x is damaged", "an error of the server; its log says more"):
        got = tenants.post("alice", f"{id}/generate", text="a", max_new_tokens=9, keep=False)
        assert events(got.text)[-1] == ("error", {"error": said})
    assert "broken" in caplog.text


def test_what_is_queued_counts_at_once(tmp_path: Path) -> None:
    async def queue_three() -> None:
        work, done = Work(1, tmp_path), list[int]()
        assert work.queue("a", "x", lambda: done.append(1)) == 1
        with pytest.raises(LimitReached, match="1 requests of yours are being worked on"):
            work.queue("a", "x", lambda: done.append(2))
        with pytest.raises(LimitReached, match="1 requests of yours are being worked on"):
            await work.run("a", "y", lambda: done.append(2))
        assert work.queue("b", "x", lambda: done.append(3)) == 1
        await work.drain()
        assert sorted(done) == [1, 3] and work.all_queued == 0 and not work.failures
        await work.run("a", "x", lambda: done.append(4))
        work.close()

    asyncio.run(queue_three())


def test_what_failed_is_forgotten_with_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(app_module, "EXPIRY_SECONDS", 0.0)
    with make_pool(tmp_path, clock=lambda: now[0]) as pool:
        names = [pool.create("a", ttl=ttl) for ttl in (10, None)]
        work = Work(4, tmp_path)
        work.failures = {("a", name): "why" for name in names}
        now[0] = 11

        async def expire() -> None:
            task = asyncio.create_task(app_module._expire(pool, work))
            while len(work.failures) > 1:
                await asyncio.sleep(0.001)
            task.cancel()

        asyncio.run(asyncio.wait_for(expire(), 20))
        assert list(work.failures) == [("a", names[1])] and pool.names("a") == names[1:]


def test_metrics_count_every_sleep(tenants: Tenants) -> None:
    id = tenants.new()

    def counted(kind: str) -> float:
        text = tenants.call("alice", "GET", "/metrics").text
        [line] = [one for one in text.splitlines() if one.startswith(f'sleep_lightning_tokens_total{{kind="{kind}"}}')]
        return float(line.split()[-1])

    assert counted("slept on") == 0
    tenants.post("alice", f"{id}/append", tokens=[1] * 2 * L + [2])
    assert counted("slept on") == 2 * L
    tenants.post("alice", f"{id}/sleep", wait=True)
    assert counted("slept on") == 2 * L + 1
    tenants.post("alice", f"{id}/ask", tokens=[1, 2], max_new_tokens=L)
    assert counted("slept on") == 3 * L + 1 and counted("read") == 2 * L + 3 and counted("generated") == L


def test_metrics_count(tenants: Tenants) -> None:
    id = tenants.new()
    tenants.post("alice", f"{id}/append", text=TEXT)
    tenants.get("alice", "/nothing")
    text = tenants.call("alice", "GET", "/metrics").text
    route = 'method="POST",route="/v1/sessions/{id}/append"'
    assert f'sleep_lightning_requests_total{{{route},status="200"}} 1.0' in text
    assert 'sleep_lightning_tokens_total{kind="read"} 8.0' in text
    assert "sleep_lightning_sessions_in_memory 1.0" in text and "sleep_lightning_sessions 1.0" in text
    assert f"sleep_lightning_memory_bytes {float(tenants.pool.session_bytes)}" in text
