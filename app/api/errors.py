"""The one place where an error becomes an answer: RFC 9457, `application/problem+json`.

Errors of ours carry their own status, code and sentence. Whatever else happens is logged with its traceback and
answered with one constant sentence.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from app.errors import (
    AppError,
    BadRequest,
    BrokerUnavailable,
    InternalError,
    InvalidOption,
    MethodNotAllowed,
    NotFound,
)
from app.refusals import refuses_writes
from app.schemas import Problem

logger = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"


def add_handlers(app: FastAPI) -> None:
    """Teach the application to render every error."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def answer_to(request: Request, error: Exception) -> Response:
    """The answer to a request that an error ended, whichever it is."""
    handler = next(_HANDLERS[kind] for kind in type(error).__mro__ if kind in _HANDLERS)
    return await handler(request, error)


def render(
    error: AppError, *, members: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that stands for an error; `members` are set beside the standard ones."""
    problem = Problem(
        title=error.title,
        status=error.http_status,
        detail=error.message,
        code=error.code,
        retryable=error.retryable,
    )
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(
        {**problem.model_dump(), **(members or {})},
        status_code=error.http_status,
        headers={**retry, **(headers or {})},
        media_type=PROBLEM_JSON,
    )


async def _on_app_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, AppError):
        raise TypeError("registered for AppError")
    return render(error)


async def _on_redis_error(request: Request, error: Exception) -> Response:
    away = isinstance(error, RedisConnectionError | RedisTimeoutError)
    if not away and not refuses_writes(error):
        return await _on_unexpected(request, error)
    logger.warning("Redis is unavailable: %s", error)
    return render(BrokerUnavailable(BrokerUnavailable.SENTENCE))


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise TypeError("registered for RequestValidationError")
    return render(InvalidOption(describe_validation(error.errors())))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError("registered for HTTPException")
    headers = dict(error.headers or {})
    if error.status_code == NotFound.http_status:
        return render(NotFound(f"There is nothing at {request.url.path}. See /docs for the calls there are."))
    if error.status_code == MethodNotAllowed.http_status:
        detail = f"{request.method} is not for {request.url.path}. See /docs for the calls there are."
        return render(MethodNotAllowed(detail), headers=headers)
    return render(BadRequest(str(error.detail)), headers=headers)


async def _on_disconnect(request: Request, _error: Exception) -> Response:
    logger.info("the client went away while sending to %s", request.url.path)
    return render(BadRequest("The request ended before its body did."))


async def _on_unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return render(InternalError(InternalError.SENTENCE))


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    AppError: _on_app_error,
    RedisError: _on_redis_error,
    RequestValidationError: _on_invalid_request,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_disconnect,
    Exception: _on_unexpected,
}

#: As much of what a client wrote as is said back to it.
MAX_ECHO = 40
#: More wrong options than these are not told.
_MAX_TOLD = 3
#: What pydantic says in terms of Python.
_PLAINLY = {"extra_forbidden": "There is no such option", "tuple_type": "Input should be a list"}


def describe_validation(errors: Any) -> str:
    """One sentence of pydantic's list of errors: which option, and what is wrong with it."""
    parts = []
    for error in errors[:_MAX_TOLD]:
        name = ".".join(str(part) for part in error["loc"] if part not in ("body", "query", "path"))[:MAX_ECHO]
        said = _PLAINLY.get(error["type"], error["msg"].removeprefix("Value error, "))
        parts.append(f"{name}: {said}" if name else said)
    return "; ".join(parts) + ". See /docs for the options there are."
