"""One sentence of JSON for everything that goes wrong."""

import errno
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sleep_lightning.serve.limits import LimitReached
from sleep_lightning.serve.schemas import Error
from sleep_lightning.session import NoRoom, NoSession, SessionExpired

logger = logging.getLogger(__name__)
RETRY = 1
"""Seconds after which a client that has reached a limit may come again."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Error, "description": "No token of this server."},
    404: {"model": Error, "description": "No such session of yours."},
    410: {"model": Error, "description": "The session has expired."},
    413: {"model": Error, "description": "The body is too long."},
    422: {"model": Error, "description": "Something in the request is wrong."},
    429: {"model": Error, "description": "A limit is reached."},
    507: {"model": Error, "description": "The disk is full."},
}
"""For OpenAPI."""


def told(error: Exception, directory: Path) -> tuple[int, str]:
    """Status and sentence for a client; the place of the files is not in it. What is the server's fault is logged."""
    status, said = _status_of(error)
    if status == 500:
        logger.error("a request failed", exc_info=error)
    return status, said.replace(f"{directory}/", "")


def _status_of(error: Exception) -> tuple[int, str]:
    said = " ".join(str(error).split())
    if isinstance(error, NoSession):
        return 404, said
    if isinstance(error, SessionExpired):
        return 410, "the session has expired and its memory is deleted; begin a new one"
    if isinstance(error, LimitReached):
        return 429, said
    if isinstance(error, NoRoom):
        return 507, said
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return (507, "the disk is full; nothing is lost") if full else (500, "a file of the server cannot be used")
    if isinstance(error, ValueError):
        return 422, said
    return 500, "an error of the server; its log says more"


def answer_errors(app: FastAPI, directory: Path) -> None:
    """Have an app answer what its routes raise."""

    def response(error: Exception) -> JSONResponse:
        status, said = told(error, directory)
        headers = {"Retry-After": str(RETRY)} if status == 429 else None
        return JSONResponse({"error": said}, status, headers)

    async def answered(_: Request, error: Exception) -> JSONResponse:
        return response(error)

    async def of_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == 400:  # numbers of thousands of digits, too deep, no text
            return JSONResponse({"error": "the body cannot be read as JSON; send an object"}, 422)
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    async def of_body(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"error": _said(error.errors())}, 422)

    for kind in (ValueError, OSError, RuntimeError, Exception):
        app.add_exception_handler(kind, answered)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_body)


def _said(errors: Sequence[Any]) -> str:
    first = errors[0]
    place = ".".join(str(one) for one in first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {first['msg']}{more}"[:500]
