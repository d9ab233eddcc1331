"""What every request passes before anything reads it: its token, its size, and the clock."""

import json
import time
from collections import Counter
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.metrics import Metrics
from sleep_lightning.serve.tokens import BearerTokens

OPEN = ("/health", "/openapi.json")
"""Paths without a token."""
GONE = 499
"""Status by which a client that went away before it had sent its request is counted; nobody is told."""
STATES = "/v1/states"
"""Where a state may be sent."""
BODIES = 4
"""States of the largest size whose bytes an owner's requests may hold at a time."""


class Guard:
    """ASGI middleware: ``scope["state"]["owner"]`` is whose token came.

    Args:
        app: behind it.
        tokens: that are accepted.
        limits: of bodies.
        metrics: that count requests.
        route_of: the template of a request's path.
    """

    def __init__(
        self, app: ASGIApp, tokens: BearerTokens, limits: Limits, metrics: Metrics, route_of: Callable[[Scope], str]
    ) -> None:
        self._app, self._tokens, self._limits, self._metrics, self._route_of = app, tokens, limits, metrics, route_of
        self._held: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._checked(scope, receive, counted)
        except ClientDisconnect:  # in the middle of its body: nothing of it is carried out
            status = GONE
        finally:
            labels = _method(scope), self._route_of(scope)
            self._metrics.requests.labels(*labels, str(status)).inc()
            self._metrics.seconds.labels(*labels).observe(time.perf_counter() - start)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        owner = self._tokens.owner_of(headers.get(b"authorization"))
        if owner is None and scope["path"] not in OPEN:
            said = "this needs the header Authorization: Bearer TOKEN, with a token of this server"
            await _refuse(send, 401, said, ((b"www-authenticate", b"Bearer"),))
            return
        scope.setdefault("state", {})["owner"] = owner
        most = self._limits.state_bytes if scope["path"] == STATES else self._limits.body_bytes
        body = _Body(self._held, owner or "", self._limits.state_bytes * BODIES)
        try:
            refused = await body.read(receive, most, headers.get(b"content-length"))
            if refused is None:
                await self._app(scope, _replayed(b"".join(body.parts), receive), send)
            else:
                await _refuse(send, *refused, ((b"connection", b"close"),))
        finally:
            self._held[body.owner] -= body.size
            self._held += Counter()  # owners with none are dropped


class _Body:
    """What a request holds.

    Args:
        held: bytes by owner, of all requests.
        owner: of this one.
        together: most bytes of an owner.
    """

    def __init__(self, held: Counter[str], owner: str, together: int) -> None:
        self._held, self.owner, self._together = held, owner, together
        self.parts: list[bytes] = []
        self.size = 0

    async def read(self, receive: Receive, most: int, promised: bytes | None) -> tuple[int, str] | None:
        """Read all of it, ``most`` bytes; else status and reason of the refusal. Raises ClientDisconnect."""
        too_long = 413, f"the body has more than {most} bytes; send less at once"
        if promised is not None and promised.isdigit() and int(promised[:30]) > most:
            return too_long
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part, more = message.get("body", b""), message.get("more_body", False)
            self.parts.append(part)
            self.size += len(part)
            self._held[self.owner] += len(part)
            if self.size > most:
                return too_long
            if self._held[self.owner] > self._together:
                return 429, f"requests of yours hold more than {self._together} bytes; wait for one of them"
        return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send, status: int, said: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps({"error": said}).encode()
    plain = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *headers]})
    await send({"type": "http.response.body", "body": body})


def _method(scope: Scope) -> str:
    """No client can make a label of its own."""
    return scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
