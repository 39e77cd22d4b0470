"""Idempotency keys of submissions: each request is carried out once, however often it is sent."""

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse

from app import idempotency
from app.api.deps import Service
from app.errors import BadRequest
from app.idempotency import Answered, Claim
from app.jobs import Work

logger = logging.getLogger(__name__)

_HEADER = "Idempotency-Key"
_MAX_LENGTH = 255


@contextlib.asynccontextmanager
async def claimed(request: Request, service: Service) -> AsyncIterator[Claim | Answered | None]:
    """Hold the request's key, if it has one; or what was answered under it before.

    A request that is refused gives the key up. Raises `BadRequest` for what cannot be a key, `IdempotencyInFlight`.
    """
    name = request.headers.get(_HEADER)
    if name is None:
        yield None
        return
    if not name.strip() or len(name) > _MAX_LENGTH:
        raise BadRequest(f"The {_HEADER} is empty or longer than {_MAX_LENGTH} characters. Send a UUID, for example.")
    held = await idempotency.claim(service.redis, name)
    try:
        yield held
    except BaseException:
        if isinstance(held, Claim):
            try:
                await idempotency.give_up(service.redis, held)
            except RedisError as error:  # it lapses by itself
                logger.warning("an idempotency key could not be given up: %s", error)
        raise


def fingerprint_of(work: Work, contents: Sequence[str | None]) -> str:
    """Stands for what a request asks: `contents` are the SHA-256 of its files, or its URL.

    Never the body itself: the boundary of a form differs each time.
    """
    options = work.options.model_dump(mode="json")
    return idempotency.fingerprint(work.task.name, work.model, work.priority, options, list(contents))


async def remember(service: Service, claim: Claim, document: dict[str, Any]) -> None:
    """Keep the answer for requests to come. It is given in any case."""
    try:
        await idempotency.remember(service.redis, claim, document)
    except RedisError as error:
        logger.warning("an answer could not be kept: %s", error)


def replay(document: dict[str, Any], *, location: str) -> JSONResponse:
    """The first answer again."""
    headers = {"Location": location, "Idempotency-Replayed": "true"}
    return JSONResponse(document, status_code=202, headers=headers)
