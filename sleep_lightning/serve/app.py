"""The application: routes behind their guard, a model's sessions behind both."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Scope

from sleep_lightning.serve.errors import answer_errors
from sleep_lightning.serve.guard import Guard
from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.metrics import Metrics
from sleep_lightning.serve.routes import session_routes
from sleep_lightning.serve.tokens import BearerTokens
from sleep_lightning.serve.work import Work
from sleep_lightning.session import SessionPool

logger = logging.getLogger(__name__)
EXPIRY_SECONDS = 30.0
"""How often sessions past their ttl are looked for, and what failed in the queue of those that are gone."""


def create_app(
    pool: SessionPool, tokens: BearerTokens, limits: Limits | None = None, stopping: threading.Event | None = None
) -> ASGIApp:
    """An ASGI application over a pool, which stays the caller's to close, after the application has ended.

    Args:
        pool: of the sessions.
        tokens: who may use it.
        limits: of requests; None: the defaults.
        stopping: set it when the server is to end: answers that are being made end early.
    """
    limits = limits or Limits()
    work, stopping = Work(limits.waiting, pool.directory), stopping or threading.Event()
    metrics = Metrics(pool, work)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(_expire(pool, work))
        yield
        expiring.cancel()
        with suppress(asyncio.CancelledError):
            await expiring
        await work.drain()
        work.close()

    app = FastAPI(
        title="sleep_lightning",
        summary="Sessions of a language model that sleeps",
        lifespan=lifespan,
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    answer_errors(app, pool.directory)
    router = session_routes(pool, work, limits, metrics, stopping)
    app.include_router(router)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ending" if stopping.is_set() else "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def scrape() -> Response:
        """For Prometheus: of the whole server, without names."""
        return Response(await work.in_thread(metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Guard(app, tokens, limits, metrics, _route)


def _route(scope: Scope) -> str:
    """The template of the route that has answered."""
    return str(getattr(scope.get("route"), "path", "none"))


async def _expire(pool: SessionPool, work: Work) -> None:
    while True:
        await asyncio.sleep(EXPIRY_SECONDS)
        try:
            await work.in_thread(pool.expire)
        except Exception:
            logger.exception("sessions that have expired could not be deleted")
        work.failures = {key: said for key, said in work.failures.items() if key in pool.entries}
