"""Submitting work: one address for each task, all made the same way."""

import asyncio
import logging
import re
import uuid
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from redis.exceptions import RedisError, ResponseError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from app import addresses, errors
from app.api import examples, openapi
from app.api.claims import claimed, fingerprint_of, remember, replay
from app.api.deps import Service, ServiceDep
from app.api.submissions import probe_and_keep, wants_fresh, work_asked
from app.api.uploads import Received, receive
from app.config import Settings
from app.documents import Job, result_document, status_document, status_url
from app.errors import AppError
from app.idempotency import Answered, Claimed
from app.jobs import Picture
from app.schemas import StatusDocument
from app.states import State
from app.storage import IncomingUpload
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
    schema = openapi.result_schema(task)
    location = {"Location": openapi.header("The job's status.")}

    async def submit(request: Request, service: ServiceDep) -> Response:
        wait_s = _wait_asked(request.headers)
        job = await _accept(request, service, task)
        if isinstance(job, Answered):
            if job.document is not None and not wait_s:
                return replay(job.document, location=job.document["urls"]["status"])
            job = await service.jobs.get(str(job.job_id))
        if wait_s:
            job = await _end(service, job, timeout_s=wait_s)
        headers = {"Location": status_url(job.record.job_id)}
        if wait_s and job.state is State.SUCCESS:
            applied = {**headers, "Preference-Applied": f"wait={wait_s}"}
            return JSONResponse(result_document(job, schema).model_dump(mode="json"), headers=applied)
        return JSONResponse(status_document(job).model_dump(mode="json"), status_code=202, headers=headers)

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
                errors.FileTooLarge,
                errors.UnsupportedImage,
                errors.InvalidImage,
                errors.InvalidOption,
                errors.ModelUnavailable,
            ),
        },
        openapi_extra=openapi.submission(task, settings),
    )


async def _accept(request: Request, service: Service, task: Task[Any]) -> Job | Answered:
    """Take the picture in, refuse what is not sound, submit the rest; or what was answered to this request before."""
    settings, storage, job_id = service.settings, service.storage, str(uuid.uuid4())
    async with claimed(request, service) as held:
        with storage.incoming(job_id, max_bytes=settings.max_file_size) as upload:
            received = await receive(request, upload, storage=storage, settings=settings)
            upload.finish()
            work = await work_asked(received.options, task, service, fresh=wants_fresh(request.headers))
            asked = fingerprint_of(work, [received.url or upload.sha256])
            if isinstance(held, Answered):
                return held.check(asked)
            picture = await _keep(received, upload, service)
        claim = held and held.completed(Answered(asked, job_id=job_id))
        try:
            job = await service.jobs.submit(work, picture, job_id=job_id, claim=claim)
        except Claimed as elsewhere:
            storage.remove(picture.path)
            return Answered.from_text(str(elsewhere)).check(asked)
        except (AppError, ResponseError):
            # After any other error the job may be there, and needs its file; if not, the sweeper takes it.
            storage.remove(picture.path)
            raise
        if job.record.cached:
            storage.remove(picture.path)
        if claim:
            await remember(service, claim, status_document(job).model_dump(mode="json"))
        return job


async def _keep(received: Received, upload: IncomingUpload, service: Service) -> Picture:
    """The picture in its place, or where a worker will fetch it."""
    if received.url is not None:
        url = addresses.accept(received.url, settings=service.settings)
        return Picture(path=service.storage.upload(upload.job_id, ""), filename=url.filename, url=str(url))
    keep = partial(probe_and_keep, upload, received.filename, max_pixels=service.settings.max_pixels)
    return await to_thread.run_sync(keep)


async def _end(service: Service, job: Job, *, timeout_s: float) -> Job:
    """The job when it has ended; or as it was, if that cannot be told: it is accepted, and its id must get through."""
    try:
        return await service.jobs.end(job.record.job_id, timeout_s=timeout_s)
    except (RedisError, AppError) as error:
        logger.warning("job %s could not be waited for: %s", job.record.job_id, error)
    except asyncio.CancelledError:  # the server stops, and lets nobody wait any longer
        logger.info("job %s is no longer waited for", job.record.job_id)
    return job


def _wait_asked(headers: Headers) -> int:
    """Seconds of `Prefer: wait=n`, RFC 7240, at most what we grant; 0 when not asked for."""
    match = _PREFER_WAIT.search(",".join(headers.getlist("prefer")))
    return min(int(match[1][:_DIGITS]), _MAX_WAIT_S) if match else 0
