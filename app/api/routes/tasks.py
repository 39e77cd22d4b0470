"""Submitting work: one address for each task, all made the same way."""

import logging
import re
import uuid
from collections.abc import Iterable
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from app import errors, imaging
from app.api import openapi
from app.api.deps import Service, ServiceDep
from app.api.errors import describe_validation
from app.api.uploads import Form, receive
from app.broker import Priority
from app.config import Settings, public_name
from app.documents import Job, result_document, status_document, status_url
from app.errors import AppError, InvalidOption
from app.jobs import Work
from app.registry import ImageFacts
from app.schemas import StatusDocument
from app.states import State
from app.storage import IncomingUpload
from app.tasks.base import Task

logger = logging.getLogger(__name__)

_MAX_WAIT_S = 60
#: As much of a wrong value as is said back.
_MAX_ECHO = 40
_PREFER_WAIT = re.compile(r"""(?:^|[,;])\s*wait\s*=\s*"?(\d+)"?\s*(?=$|[,;])""", re.IGNORECASE)


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
                openapi.PENDING,
                headers=location,
            ),
            **openapi.problems(
                errors.BadRequest,
                errors.FileTooLarge,
                errors.UnsupportedImage,
                errors.InvalidImage,
                errors.InvalidOption,
                errors.ModelUnavailable,
            ),
        },
        openapi_extra=openapi.submission(task, settings),
    )


async def _accept(request: Request, service: Service, task: Task[Any]) -> Job:
    """Take the upload in, refuse what is not sound, submit the rest. Whatever goes wrong leaves no file behind."""
    settings, job_id = service.settings, str(uuid.uuid4())
    with service.storage.incoming(job_id, max_bytes=settings.max_file_size) as upload:
        form = await receive(request, upload, max_bytes=settings.max_file_size)
        upload.finish()
        asked = await _asked(form, task, service)
        facts, path = await to_thread.run_sync(_probe_and_keep, upload, settings.max_pixels)
    try:
        return await service.jobs.submit(asked, job_id=job_id, path=path, filename=form.filename, image=facts)
    except BaseException:
        service.storage.remove(path)
        raise


async def _end(service: Service, job: Job, *, timeout_s: float) -> Job:
    """The job when it has ended; or as it was, if that cannot be told: it is accepted, and its id must get through."""
    try:
        return await service.jobs.end(job.record.job_id, timeout_s=timeout_s)
    except (RedisError, AppError) as error:
        logger.warning("job %s could not be waited for: %s", job.record.job_id, error)
        return job


def _probe_and_keep(upload: IncomingUpload, max_pixels: int) -> tuple[ImageFacts, str]:
    info = imaging.probe(upload.path, max_pixels=max_pixels)
    facts = ImageFacts(
        width=info.width, height=info.height, format=info.format, bytes=upload.bytes, sha256=upload.sha256
    )
    return facts, upload.keep(imaging.EXTENSIONS[info.format])


async def _asked(form: Form, task: Task[Any], service: Service) -> Work:
    """What the fields ask for. Raises `InvalidOption`, or `ModelUnavailable` when nobody can do it."""
    fields = dict(form.fields)
    models = [public_name(model) for model in task.models(service.settings)]
    priorities = {priority.name.lower(): priority for priority in Priority}
    model = _one_of(models, fields.pop("model"), option="model") if "model" in fields else None
    priority = priorities[_one_of(priorities, fields.pop("priority", "normal"), option="priority")]
    try:
        options = task.options.model_validate(fields)
    except ValidationError as invalid:
        raise InvalidOption(describe_validation(invalid.errors())) from None
    labels = await service.availability.labels(task.name)
    task.check(options, labels.get(model or models[0], ()))
    return Work(task=task, model=model, options=options, priority=priority)


def _one_of(choices: Iterable[str], asked: str, *, option: str) -> str:
    if asked not in choices:
        raise InvalidOption(f"{option}: {asked[:_MAX_ECHO]!r} is not one of: {', '.join(choices)}.")
    return asked


def _wait_asked(headers: Headers) -> int:
    """Seconds of `Prefer: wait=n`, RFC 7240, at most what we grant; 0 when not asked for."""
    match = _PREFER_WAIT.search(",".join(headers.getlist("prefer")))
    return min(int(match[1]), _MAX_WAIT_S) if match else 0
