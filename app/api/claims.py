"""Idempotency keys of submissions: each request is carried out once, however often it is sent."""

import logging
from collections.abc import Sequence
from types import TracebackType

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse

from app import idempotency
from app.api.deps import Service
from app.config import Settings, public_name
from app.documents import Job, status_document
from app.errors import BadRequest, JobGone, JobNotFound
from app.idempotency import Answered, Claim
from app.jobs import Work

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
MAX_LENGTH = 255
#: Goes with an answer that was given before.
REPLAYED = {"Idempotency-Replayed": "true"}


class Claiming:
    """Holds the request's key, if it has one; or what was answered under it before.

    A request that is refused gives the key up. Raises `BadRequest` for what cannot be a key, `IdempotencyInFlight`.
    """

    def __init__(self, request: Request, service: Service) -> None:
        self._names = request.headers.getlist(HEADER)
        self._service = service
        self._held: Claim | Answered | None = None

    async def __aenter__(self) -> Claim | Answered | None:
        if not self._names:
            return None
        name, *others = self._names
        if others or not 0 < len(name) <= MAX_LENGTH or not name.isascii():
            message = f"The {HEADER} is not one of 1 to {MAX_LENGTH} ASCII characters. Send a UUID, for example."
            raise BadRequest(message)
        self._held = await idempotency.claim(self._service.redis, name)
        return self._held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not isinstance(self._held, Claim):
            return
        try:
            await idempotency.give_up(self._service.redis, self._held)
        except RedisError as failed:  # it lapses by itself
            logger.warning("an idempotency key could not be given up: %s", failed)


def fingerprint_of(work: Work, content: str | Sequence[str | None], *, settings: Settings) -> str:
    """Stands for what a request asks: `content` is its URL or the SHA-256 of its file; of a batch, those of its files.

    Never the body itself: the boundary of a form differs each time.
    """
    model = work.model or public_name(work.task.models(settings)[0])
    options = work.options.model_dump(mode="json")
    return idempotency.fingerprint(work.task.name, model, work.priority, options, content)


async def remember(service: Service, claim: Claim, job: Job) -> None:
    """Keep the answer for requests to come. It is given in any case.

    What the file is called is for the job to tell, and to forget.
    """
    document = {**status_document(job).model_dump(mode="json"), "filename": None}
    try:
        await idempotency.remember(service.redis, claim, document)
    except RedisError as error:
        logger.warning("an answer could not be kept: %s", error)


async def job_of(service: Service, answered: Answered) -> Job:
    """The job that was accepted under a key. Raises `JobGone`."""
    try:
        return await service.jobs.get(str(answered.job_id))
    except JobNotFound:  # the key is kept longer
        raise JobGone(JobGone.SENTENCE) from None


def first_answer(answered: Answered, job: Job) -> JSONResponse:
    """What was answered when the job was accepted; how the job is now, if that got lost."""
    document = answered.document or status_document(job).model_dump(mode="json")
    headers = {"Location": document["urls"]["status"], **REPLAYED}
    return JSONResponse({**document, "filename": job.record.filename}, status_code=202, headers=headers)
