"""Submitting work: one address for each task, all made the same way."""

import asyncio
import contextlib
import logging
import re
import uuid
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from redis.exceptions import RedisError
from starlette.datastructures import Headers

from app import addresses, errors
from app.api import examples, openapi
from app.api.answers import DocumentResponse
from app.api.claims import REPLAYED, Claiming, fingerprint_of, first_answer, job_of, remember
from app.api.deps import Service, ServiceDep
from app.api.submissions import (
    KeptIfAccepted,
    check_room,
    discard,
    kept_at_once,
    offered,
    probe_and_keep,
    wants_fresh,
    work_asked,
)
from app.api.uploads import Received, receive
from app.changes import Watch
from app.config import Settings
from app.documents import Job, result_document, status_document, status_url
from app.errors import AppError
from app.idempotency import Answered, Claimed
from app.imaging import AT_ONCE_BYTES
from app.incoming import IncomingUpload
from app.jobs import Picture
from app.schemas import StatusDocument
from app.states import State
from app.tasks.base import Task

logger = logging.getLogger(__name__)

_MAX_WAIT_S = 60
#: Python refuses to read numbers of thousands of digits.
_DIGITS = 9
_PREFER_WAIT = re.compile(r"""(?:^|[,;])\s*wait\s*=\s*"?0*(\d+)"?\s*(?=$|[,;])""", re.IGNORECASE)


def router(tasks: tuple[Task[Any], ...], settings: Settings) -> APIRouter:
    """`POST /{task}` for every task."""
    routes = APIRouter(tags=["tasks"])
    for task in tasks:
        _add(routes, task, settings)
    return routes


def _add(routes: APIRouter, task: Task[Any], settings: Settings) -> None:
    location = {"Location": openapi.header("The job's status."), **openapi.REPLAYED}

    async def submit(request: Request, service: ServiceDep) -> Response:
        wait_s, job_id = _wait_asked(request.headers), str(uuid.uuid4())
        # Watched from before it is there, so that its end is not missed, and nobody has to look in between.
        own = await _watched(service, job_id) if wait_s else None
        with own or contextlib.nullcontext():
            accepted = await _accept(request, service, task, job_id)
            if isinstance(accepted, Answered):
                job, replayed, watch = await job_of(service, accepted), REPLAYED, None
                if not wait_s:
                    return first_answer(accepted, job)
            else:
                job, replayed, watch = accepted, {}, None if own and own.is_broken else own
            if wait_s and not job.ended:
                job = await _end(service, job, watch, timeout_s=wait_s)
        headers = {"Location": status_url(job.job_id), **replayed}
        if wait_s and job.state is State.SUCCESS:
            applied = {**headers, "Preference-Applied": f"wait={wait_s}"}
            return DocumentResponse(result_document(job), headers=applied)
        return DocumentResponse(status_document(job), status_code=202, headers=headers)

    routes.add_api_route(
        f"/{task.name}",
        submit,
        methods=["POST"],
        status_code=202,
        name=task.name,
        summary=task.summary,
        description="Accepts a picture and answers at once with a job to follow. "
        f"With `Prefer: wait=n` (seconds, at most {_MAX_WAIT_S}) it waits that long for the result.",
        response_model=StatusDocument,
        response_description="Accepted; follow `urls`.",
        responses={
            200: {
                **openapi.results((task,)),
                "headers": {**location, "Preference-Applied": openapi.header("How long was waited at most.")},
            },
            202: openapi.answer(
                "Accepted; follow `urls`.",
                {**examples.PENDING, "task": task.name},
                headers=location,
            ),
            **openapi.problems(
                errors.BadRequest,
                errors.UrlRefused,
                errors.IdempotencyInFlight,
                errors.JobGone,
                errors.FileTooLarge,
                errors.UnsupportedImage,
                errors.InvalidImage,
                errors.InvalidOption,
                errors.IdempotencyMismatch,
                errors.ModelUnavailable,
                errors.QueueFull,
                errors.DiskFull,
            ),
        },
        openapi_extra=openapi.submission(task, settings),
    )


async def _accept(request: Request, service: Service, task: Task[Any], job_id: str) -> Job | Answered:
    """Take the picture in, refuse what is not sound, submit the rest; or what was answered to this request before."""
    settings, storage = service.settings, service.storage
    async with Claiming(request, service) as held:
        if not isinstance(held, Answered):
            check_room(request, service, max_bytes=settings.max_file_size)
        with storage.incoming(job_id, max_bytes=settings.max_file_size, hold_bytes=AT_ONCE_BYTES) as upload:
            received = await receive(request, upload, storage=storage, settings=settings)
            upload.finish()
            work = work_asked(received.options, task, settings)
            asked = fingerprint_of(work, received.url or upload.sha256, settings=settings) if held else ""
            if isinstance(held, Answered):
                return held.check(asked)
            work = await offered(work, service, fresh=wants_fresh(request.headers))
            picture = await _keep(received, upload, service)
        claim = held and held.completed(Answered(asked, job_id=job_id))
        try:
            with KeptIfAccepted(storage, [picture]):
                job = await service.jobs.submit(work, picture, job_id=job_id, claim=claim)
        except Claimed as elsewhere:
            return Answered.from_text(str(elsewhere)).check(asked)
        if job.cached:
            discard(storage, [picture])
        if claim:
            await remember(service, claim, job)
        return job


async def _keep(received: Received, upload: IncomingUpload, service: Service) -> Picture:
    """The picture in its place, or where a worker will fetch it."""
    if received.url is not None:
        url = addresses.accept(received.url, settings=service.settings)
        return Picture(path=service.storage.upload(upload.job_id, ""), filename=url.filename, url=str(url))
    max_pixels = service.settings.max_pixels
    if picture := kept_at_once(upload, received.filename, max_pixels=max_pixels):
        return picture
    return await to_thread.run_sync(partial(probe_and_keep, upload, received.filename, max_pixels=max_pixels))


async def _watched(service: Service, job_id: str) -> Watch | None:
    """A watch on a job that is not there yet; None where nothing can be told of it, for it is to be accepted anyway."""
    try:
        return await service.jobs.watch(job_id)
    except RedisError as error:
        logger.warning("job %s is not watched: %s", job_id, error)
        return None


async def _end(service: Service, job: Job, watch: Watch | None, *, timeout_s: float) -> Job:
    """The job when it has ended; or as it was, if that cannot be told: it is accepted, and its id must get through.

    `watch` is there for one that was accepted only now.
    """
    try:
        if watch is None:
            return await service.jobs.end(job.job_id, timeout_s=timeout_s)
        return await service.jobs.end_of(job, watch, timeout_s=timeout_s)
    except (RedisError, AppError) as error:
        logger.warning("job %s could not be waited for: %s", job.job_id, error)
    except asyncio.CancelledError:  # the server stops, and lets nobody wait any longer
        logger.info("job %s is no longer waited for", job.job_id)
    return job


def _wait_asked(headers: Headers) -> int:
    """Seconds of `Prefer: wait=n`, RFC 7240, at most what we grant; 0 when not asked for."""
    match = _PREFER_WAIT.search(",".join(headers.getlist("prefer")))
    return min(int(match[1][:_DIGITS]), _MAX_WAIT_S) if match else 0
