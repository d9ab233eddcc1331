"""The sessions of an owner, as HTTP."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer

from sleep_lightning.serve import schemas as s
from sleep_lightning.serve.errors import REFUSALS, status_of
from sleep_lightning.serve.limits import LimitReached, Limits
from sleep_lightning.serve.metrics import Metrics
from sleep_lightning.serve.streams import Generation, event
from sleep_lightning.serve.work import Work
from sleep_lightning.session import SessionPool, SleepSession

T = TypeVar("T")
STATE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _owner(request: Request) -> str:
    owner: str = request.state.owner  # Guard has seen to it
    return owner


Owner = Annotated[str, Depends(_owner)]


def session_routes(
    pool: SessionPool, work: Work, limits: Limits, metrics: Metrics, stopping: threading.Event
) -> APIRouter:
    """``/v1``.

    Args:
        pool: of the sessions; what is done to one is done in a thread, in its turn.
        work: those threads, and what is queued.
        limits: of requests.
        metrics: that count tokens.
        stopping: set when the server ends: answers that are being made end early.
    """
    router = APIRouter(prefix="/v1", dependencies=[Depends(HTTPBearer(auto_error=False))], responses=REFUSALS)

    async def use(owner: str, id: str, f: Callable[[SleepSession], T]) -> T:
        def run() -> T:
            with pool.use(owner, id) as session:
                return f(session)

        return await work.run(owner, id, run)

    def info(owner: str, session: SleepSession) -> s.Session:
        key = owner, session.id
        return s.Session.of(session, work.queued(*key), work.failures.get(key))

    async def begin(owner: str, f: Callable[[], str]) -> s.Created:
        """A further session of an owner, one after the other."""

        def run() -> str:
            if len(pool.names(owner)) >= limits.sessions:
                raise LimitReached(f"you have {limits.sessions} sessions already; delete one first")
            return f()

        return s.Created(id=await work.run(owner, "", run))

    def check_tokens(given: s.Tokens) -> str | list[int]:
        tokens = given.given()
        if isinstance(tokens, str):
            if pool.tokenizer is None:
                raise ValueError("this model has no tokenizer; give tokens")
            tokens = list(pool.tokenizer.encode(tokens))
        if len(tokens) > limits.tokens:
            raise LimitReached(f"{len(tokens)} tokens are more than {limits.tokens} at once; send fewer")
        if (wrong := next((i for i in tokens if i >= pool.model.vocab_size), None)) is not None:
            raise ValueError(f"token {wrong} is not one of the model's, 0 to {pool.model.vocab_size - 1}")
        return tokens

    def check_windows(session: SleepSession, tokens: int) -> None:
        ahead = (session.window_fill + tokens) // session.config.window_size
        if session.windows_closed + ahead > limits.windows:
            raise LimitReached(f"a session closes at most {limits.windows} windows; reset it, or begin another")

    def check_passes(n: int | None) -> None:
        if n is not None and n > limits.passes:
            raise LimitReached(f"{n} passes are more than {limits.passes}; ask for fewer")

    @router.post("/sessions", status_code=201)
    async def create(owner: Owner, body: Annotated[s.NewSession, Body(default_factory=s.NewSession)]) -> s.Created:
        """Begin a session."""
        for n in (body.writes or {}).values():
            check_passes(n)
        options = {"writes": body.writes, "keep_texts": body.keep_texts, "ttl": body.ttl}
        return await begin(owner, lambda: pool.create(owner, **options))  # type: ignore[arg-type]

    @router.get("/sessions")
    async def names(owner: Owner) -> s.Sessions:
        """Your sessions."""
        return s.Sessions(sessions=pool.names(owner))

    @router.get("/sessions/{id}")
    async def stand(owner: Owner, id: str) -> s.Session:
        """How a session stands, and its bill."""
        return await use(owner, id, lambda session: info(owner, session))

    @router.delete("/sessions/{id}", status_code=204)
    async def delete(owner: Owner, id: str) -> Response:
        """Delete a session, with all its files."""
        await work.run(owner, id, lambda: pool.delete(owner, id))
        work.failures.pop((owner, id), None)
        return Response(status_code=204)

    @router.post("/sessions/{id}/append", responses={202: {"model": s.Queued}})
    async def append(owner: Owner, id: str, body: s.Append) -> Any:
        """Have tokens read. Full windows are slept on."""
        tokens = await work.in_thread(lambda: check_tokens(body))

        def read(session: SleepSession) -> s.Session:
            check_windows(session, len(tokens))
            session.append(tokens, body.source)
            metrics.tokens.labels("read").inc(len(tokens))
            return info(owner, session)

        return await use(owner, id, read) if body.wait else _queue(owner, id, read)

    @router.post("/sessions/{id}/sleep", responses={202: {"model": s.Queued}})
    async def sleep(owner: Owner, id: str, body: Annotated[s.Sleep, Body(default_factory=s.Sleep)]) -> Any:
        """Close the window as it stands; in the background, if you do not wait."""
        check_passes(body.n_passes)

        def close(session: SleepSession) -> s.Session:
            check_windows(session, session.config.window_size)
            tokens = session.window_fill
            session.sleep(body.n_passes)
            metrics.tokens.labels("slept on").inc(tokens)
            return info(owner, session)

        return await use(owner, id, close) if body.wait else _queue(owner, id, close)

    def _queue(owner: str, id: str, f: Callable[[SleepSession], object]) -> Response:
        def run() -> None:
            with pool.use(owner, id) as session:
                f(session)

        pool.entries.check(owner, id)
        return JSONResponse({"queued": work.queue(owner, id, run)}, 202)

    def answer(owner: str, id: str, body: s.Ask) -> Callable[[Callable[[Iterator[int]], T]], T]:
        """What lends the tokens of an answer."""
        most = min(32, limits.new_tokens) if body.max_new_tokens is None else body.max_new_tokens
        if most > limits.new_tokens:
            raise LimitReached(f"max_new_tokens={most} is more than {limits.new_tokens}; ask for fewer")
        options = body.options()
        prompt = check_tokens(body) if body.tokens is not None or body.text is not None else None

        def lend(f: Callable[[Iterator[int]], T]) -> T:
            with pool.use(owner, id) as session:
                check_windows(session, len(prompt or ()) + most)
                with closing(session.generate(most, prompt=prompt, **options)) as tokens:  # type: ignore[type-var]
                    return f(tokens)

        return lend

    @router.post("/sessions/{id}/ask")
    async def ask(owner: Owner, id: str, body: s.Ask) -> s.Answer:
        """Read a question, if there is one, and answer."""
        lend = await work.in_thread(lambda: answer(owner, id, body))
        begun = time.perf_counter()
        made: list[int] = await work.run(owner, id, lambda: lend(list))
        metrics.tokens.labels("generated").inc(len(made))
        return s.Answer(tokens=made, text=decode(made), seconds=time.perf_counter() - begun)

    def decode(tokens: list[int]) -> str:
        return "" if pool.tokenizer is None else pool.tokenizer.decode(tokens)

    @router.post(
        "/sessions/{id}/generate",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def generate(owner: Owner, id: str, body: s.Ask) -> StreamingResponse:
        """The same as server-sent events: ``token`` for each, then ``done``, or ``error``."""
        lend = await work.in_thread(lambda: answer(owner, id, body))
        generation = Generation(lend, decode, stopping)

        async def make() -> None:
            try:
                async with work.turn(owner, id):
                    await work.in_thread(generation.run)
            except LimitReached as error:
                generation.say("error", error)

        work.keep(asyncio.create_task(make()))
        events = generation.events()
        first = await anext(events)
        if first[0] == "error":
            raise first[1]

        async def stream() -> AsyncIterator[bytes]:
            kind, content = first
            while True:
                if kind == "error":
                    content = {"error": status_of(content)[1]}
                yield event(kind, content)
                if kind != "token":
                    metrics.tokens.labels("generated").inc(len(content.get("tokens", ())))
                    return
                kind, content = await anext(events)

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @router.post("/sessions/{id}/fork", status_code=201)
    async def fork(owner: Owner, id: str) -> s.Created:
        """Another session with the same past."""
        return await begin(owner, lambda: pool.fork(owner, id))

    @router.post("/sessions/{id}/snapshot", status_code=204)
    async def snapshot(owner: Owner, id: str) -> Response:
        """Keep the session as it is, for a rollback; a snapshot before is replaced."""
        await work.run(owner, id, lambda: pool.snapshot(owner, id))
        return Response(status_code=204)

    @router.post("/sessions/{id}/rollback")
    async def rollback(owner: Owner, id: str) -> s.Session:
        """Back to the snapshot."""
        await work.run(owner, id, lambda: pool.rollback(owner, id))
        return await use(owner, id, lambda session: info(owner, session))

    @router.post("/sessions/{id}/reset")
    async def reset(owner: Owner, id: str) -> s.Session:
        """Forget everything."""
        await work.run(owner, id, lambda: pool.reset(owner, id))
        return await use(owner, id, lambda session: info(owner, session))

    @router.post("/sessions/{id}/forget")
    async def forget(owner: Owner, id: str, body: s.Forget) -> s.Forgotten:
        """Rebuild the memory without a source, from kept texts."""
        return s.Forgotten(tokens=await work.run(owner, id, lambda: pool.forget(owner, id, body.source)))

    @router.get("/sessions/{id}/inspect")
    async def inspect(owner: Owner, id: str) -> s.Inspection:
        """Norm, rank, half-life and last change of every head."""
        return await use(owner, id, s.Inspection.of)

    @router.get("/sessions/{id}/provenance")
    async def provenance(owner: Owner, id: str) -> s.Provenance:
        """A line for every window that was closed."""
        lines = await use(owner, id, SleepSession.provenance)
        return s.Provenance(windows=[s.Window.of(line) for line in lines])

    @router.get("/sessions/{id}/state", response_class=Response, responses={200: {"content": STATE}})
    async def export(owner: Owner, id: str) -> Response:
        """The session's file."""
        content = await work.run(owner, id, lambda: pool.export(owner, id))
        return Response(content, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    @router.post("/states", status_code=201, openapi_extra={"requestBody": {"content": STATE, "required": True}})
    async def restore(owner: Owner, request: Request) -> s.Created:
        """A new session from such a file."""
        content = await request.body()

        def run() -> str:
            id = pool.restore(owner, content)
            with pool.use(owner, id) as session:
                writes = session.writes
            try:
                check_passes(None if writes is None else max(writes.others, *writes.passes.values(), 0))
            except LimitReached:
                pool.delete(owner, id)
                raise
            return id

        return await begin(owner, run)

    return router
