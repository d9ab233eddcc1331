"""A server from its start to the moment when all sessions are saved."""

import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from ipaddress import ip_address

from sleep_lightning.runs.signals import SignalsInterrupt
from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.tokens import BearerTokens
from sleep_lightning.session import SessionPool

GRACE = 10
"""Seconds for requests that are being answered when the server is told to end."""
MISSING = "serve needs fastapi, uvicorn and prometheus-client: pip install 'sleep-lightning[serve]'"


def check_installed() -> None:
    """Raises ValueError without the packages of the extra ``serve``."""
    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError as error:
        raise ValueError(MISSING) from error
    del fastapi, prometheus_client, uvicorn


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any that is free. Raises ValueError."""
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ValueError(
            f"--host {host} --port {port} cannot be listened on ({getattr(error, 'strerror', None) or error}); choose "
            f"another"
        ) from error


def serve(
    pool: SessionPool,
    tokens: BearerTokens,
    limits: Limits,
    listening: socket.socket,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Answer until SIGINT or SIGTERM, then save every session.

    Args:
        pool: closed at the end.
        tokens, limits: of the application.
        listening: from ``bind``.
        ready: called once it answers.

    Raises:
        OSError: a session could not be saved (the disk is full); the others are.
    """
    import uvicorn

    from sleep_lightning.serve.app import create_app

    stopping = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        def handle_exit(self, sig: int, frame: object) -> None:
            stopping.set()
            super().handle_exit(sig, frame)  # type: ignore[arg-type]

    config = uvicorn.Config(
        create_app(pool, tokens, limits, stopping),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        lifespan="on",
    )
    with closing(listening), SignalsInterrupt() as signals:
        try:
            Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn raises the signal again that ended it
            pass
        finally:
            with signals.held():
                pool.close()
