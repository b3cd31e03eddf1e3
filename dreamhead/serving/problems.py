"""Errors as application/problem+json (RFC 9457): a status, and one line that a person can act on."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dreamhead.errors import DreamheadError, InputError, StorageError
from dreamhead.serving.jobs import KeyReusedError, QueueFullError, UnknownJobError
from dreamhead.serving.keys import UnknownKeyError
from dreamhead.serving.uploads import SlowUploadError, TooLargeError

logger = logging.getLogger(__name__)

STATUSES: dict[type[DreamheadError], int] = {
    InputError: 422,
    KeyReusedError: 422,
    QueueFullError: 429,
    SlowUploadError: 408,
    StorageError: 503,
    TooLargeError: 413,
    UnknownJobError: 404,
    UnknownKeyError: 401,
}


class ProblemError(HTTPException):
    """An answer that isn't the one that was asked for."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)


def add_handlers(app: FastAPI, retry_after_s: int) -> None:
    """Let the app answer every error as a problem; 429 and 503 say when to try again."""
    again = {"Retry-After": str(retry_after_s)}

    def ours(request: Request, error: Exception) -> JSONResponse:
        status = next(status for kind, status in STATUSES.items() if isinstance(error, kind))
        if status == 503:
            logger.error("%s %s: %s", request.method, request.url.path, error)
            return problem(status, "the storage can't be reached: try again", again)
        headers = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}, 429: again}.get(status, {})
        return problem(status, str(error), headers)

    for kind in STATUSES:
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(RequestValidationError, _invalid)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, dict(headers or {}), "application/problem+json")


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), error.headers)


def _gone(request: Request, error: Exception) -> JSONResponse:
    # Nobody reads it; what was received is thrown away.
    logger.info("%s %s: the client went away", request.method, request.url.path)
    return problem(400, "the request was broken off")


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return problem(422, "; ".join(lines))
