"""The sessions of an owner, as HTTP."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer

from sleep_lightning.serve import schemas as s
from sleep_lightning.serve.errors import REFUSALS, told
from sleep_lightning.serve.limits import LimitReached, Limits
from sleep_lightning.serve.metrics import Metrics
from sleep_lightning.serve.streams import Events, Generation, event
from sleep_lightning.serve.work import Work
from sleep_lightning.session import AnswerText, SessionPool, SleepSession
from sleep_lightning.session.text import Text

T = TypeVar("T")
LONGEST_TOKEN = 64
"""Characters of a token; a text with more for each that it may have is not encoded to count them."""
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

    def check_tokens(given: s.Tokens) -> tuple[str | list[int], int]:
        """What is to be read, and about how many tokens it has."""
        tokens = given.given()
        if isinstance(tokens, str) and pool.tokenizer is None:
            raise ValueError("this model has no tokenizer; give tokens")
        if isinstance(tokens, str) and len(tokens) > limits.tokens * LONGEST_TOKEN:
            raise LimitReached(f"{len(tokens)} characters are too many at once; send fewer")
        ids = Text(pool.tokenizer, pool.model.vocab_size).ids(tokens)
        if len(ids) > limits.tokens:
            raise LimitReached(f"{len(ids)} tokens are more than {limits.tokens} at once; send fewer")
        return tokens, len(ids)

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
        tokens, n = await work.in_thread(lambda: check_tokens(body))

        def read(session: SleepSession) -> s.Session:
            check_windows(session, n)
            session.append(tokens, body.source)
            metrics.tokens.labels("read").inc(n)
            return info(owner, session)

        return await use(owner, id, read) if body.wait else _queue(owner, id, read)

    @router.post("/sessions/{id}/sleep", responses={202: {"model": s.Queued}})
    async def sleep(owner: Owner, id: str, body: Annotated[s.Sleep, Body(default_factory=s.Sleep)]) -> Any:
        """Close the window as it stands; in the background, if you do not wait."""
        check_passes(body.n_passes)

        def close(session: SleepSession) -> s.Session:
            check_windows(session, session.config.window_size)
            session.sleep(body.n_passes)
            return info(owner, session)

        return await use(owner, id, close) if body.wait else _queue(owner, id, close)

    def _queue(owner: str, id: str, f: Callable[[SleepSession], object]) -> Response:
        def run() -> None:
            with pool.use(owner, id) as session:
                f(session)

        pool.entries.check(owner, id)
        return JSONResponse({"queued": work.queue(owner, id, run)}, 202)

    def answer(owner: str, id: str, body: s.Ask) -> tuple[Callable[[Callable[[Iterator[int]], None]], None], list[str]]:
        """What lends the tokens of an answer, and the texts that end it."""
        most = min(32, limits.new_tokens) if body.max_new_tokens is None else body.max_new_tokens
        if most > limits.new_tokens:
            raise LimitReached(f"max_new_tokens={most} is more than {limits.new_tokens}; ask for fewer")
        options = body.options()
        asked = body.tokens is not None or body.text is not None
        prompt, n = check_tokens(body) if asked else (None, 0)
        _, texts = Text(pool.tokenizer, pool.model.vocab_size).stops(body.stop)

        def lend(f: Callable[[Iterator[int]], None]) -> None:
            with pool.use(owner, id) as session:
                check_windows(session, n + most)
                with closing(session.generate(most, prompt=prompt, **options)) as tokens:  # type: ignore[type-var]
                    f(tokens)
                metrics.tokens.labels("read").inc(n)

        return lend, texts

    async def generation(owner: str, id: str, body: s.Ask) -> Generation:
        """What is going to be made in the session's turn, by a task that is not given up with its client."""
        lend, texts = await work.in_thread(lambda: answer(owner, id, body))
        made = Generation(lend, AnswerText(pool.tokenizer, texts), stopping)

        async def make() -> None:
            try:
                async with work.turn(owner, id):
                    await work.in_thread(made.run)
                metrics.tokens.labels("generated").inc(len(made.made))
            except LimitReached as error:
                made.say("error", error)

        work.keep(asyncio.create_task(make()))
        return made

    @router.post("/sessions/{id}/ask")
    async def ask(owner: Owner, id: str, body: s.Ask) -> s.Answer:
        """Read a question, if there is one, and answer."""
        made = await generation(owner, id, body)
        async for kind, content in made.events():
            if kind == "error":
                raise content
        return s.Answer(**made.answer())

    @router.post(
        "/sessions/{id}/generate",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def generate(owner: Owner, id: str, body: s.Ask) -> Response:
        """The same as server-sent events: ``token`` for each, then ``done``, or ``error``.

        A client that goes away ends the answer; a session that keeps it keeps what was made until then.
        """
        made = await generation(owner, id, body)
        events = made.events()
        first = await anext(events)
        if first[0] == "error":
            raise first[1]

        async def stream() -> AsyncIterator[bytes]:
            kind, content = first
            async with aclosing(events):
                while True:
                    yield event(kind, {"error": told(content, pool.directory)[1]} if kind == "error" else content)
                    if kind in ("done", "error"):
                        return
                    kind, content = await anext(events)

        return Events(made, stream())

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

        def check(session: SleepSession) -> None:
            check_passes(session.most_passes)
            check_windows(session, 0)

        return await begin(owner, lambda: pool.restore(owner, content, check))

    return router
