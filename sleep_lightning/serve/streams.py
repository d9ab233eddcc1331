"""An answer as it is made: server-sent events out of a thread."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Generation:
    """Tokens of one answer, made in a thread; the client may go away.

    Args:
        start: in the thread: calls its argument with a session's iterator of tokens.
        decode: text of tokens.
        stopping: the server ends.
    """

    start: Callable[[Callable[[Iterator[int]], None]], None]
    decode: Callable[[list[int]], str]
    stopping: threading.Event

    def __post_init__(self) -> None:
        self._loop, self._said = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any]]()
        self._left = threading.Event()

    def run(self) -> None:
        """In the thread."""
        begun = time.perf_counter()

        def answer(tokens: Iterator[int]) -> None:
            made: list[int] = []
            for token in tokens:
                before = self.decode(made)
                made.append(token)
                self.say("token", {"token": token, "text": self.decode(made)[len(before) :]})
                if self._left.is_set() or self.stopping.is_set():
                    break
            self.say("done", {"tokens": made, "text": self.decode(made), "seconds": time.perf_counter() - begun})

        try:
            self.start(answer)
        except Exception as error:
            self.say("error", error)

    async def events(self) -> AsyncIterator[tuple[str, Any]]:
        """Kind and content; the last is ``done`` or ``error``."""
        try:
            kind = "token"
            while kind == "token":
                kind, content = await self._said.get()
                yield kind, content
        finally:
            self._left.set()

    def say(self, kind: str, content: Any) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._said.put_nowait, (kind, content))


def event(kind: str, content: Any) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n".encode()
