"""An answer as it is made: server-sent events out of a thread."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sleep_lightning.session import AnswerText

SILENCE = 10.0
"""Seconds without an event after which a comment says that the server is at work: a sleep may take long."""
WORKING = b": working\n\n"


@dataclass
class Generation:
    """Tokens of one answer, made in a thread; the client may go away.

    Args:
        start: in the thread: calls its argument with a session's iterator of tokens.
        text: of the answer.
        stopping: the server ends.

    Attributes:
        made: tokens so far.
        complete: whether the answer has come to its own end.
    """

    start: Callable[[Callable[[Iterator[int]], None]], None]
    text: AnswerText
    stopping: threading.Event
    made: list[int] = field(default_factory=list)
    complete: bool = False

    def __post_init__(self) -> None:
        self._loop, self._said = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any]]()
        self._left, self._begun = threading.Event(), time.perf_counter()

    def run(self) -> None:
        """In the thread. A client that has gone before it begins leaves nothing."""
        try:
            if not self._left.is_set():
                self.start(self.take)
            rest = self.text.finish()
            self.say("done", {**self.answer(), "rest": rest})
        except Exception as error:
            self.say("error", error)

    def take(self, tokens: Iterator[int]) -> None:
        """All tokens, or those until the client goes or the server ends: a session keeps what was taken."""
        for token in tokens:
            self.made.append(token)
            self.say("token", {"token": token, "text": self.text.push(token)})
            if self._left.is_set() or self.stopping.is_set():
                return
        self.complete = True

    def answer(self) -> dict[str, Any]:
        """What was made."""
        seconds = time.perf_counter() - self._begun
        return {"tokens": self.made, "text": self.text.text, "complete": self.complete, "seconds": seconds}

    async def events(self) -> AsyncGenerator[tuple[str, Any], None]:
        """Kind and content; ``working`` after a silence; the last is ``done`` or ``error``."""
        try:
            kind = "token"
            while kind in ("token", "working"):
                try:
                    async with asyncio.timeout(SILENCE):
                        kind, content = await self._said.get()
                except TimeoutError:
                    kind, content = "working", None
                yield kind, content
        finally:
            self.leave()

    def leave(self) -> None:
        """Nobody listens any more: it ends with the next token."""
        self._left.set()

    def say(self, kind: str, content: Any) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._said.put_nowait, (kind, content))


class Events(StreamingResponse):
    """The response of a generation, which ends with it, however that is.

    Args:
        made: the generation.
        events: of it, as bytes.
    """

    def __init__(self, made: Generation, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._made = made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except (OSError, ClientDisconnect):  # nobody is there to be told
            pass
        finally:
            self._made.leave()


def event(kind: str, content: Any) -> bytes:
    """One server-sent event, or the comment of one that is at work."""
    return WORKING if kind == "working" else f"event: {kind}\ndata: {json.dumps(content)}\n\n".encode()
