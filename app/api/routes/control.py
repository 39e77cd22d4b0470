"""What is done to jobs that are there: they are cancelled, retried and erased."""

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response
from starlette.responses import JSONResponse

from app import errors
from app.api import examples, openapi
from app.api.deps import Service, ServiceDep
from app.config import Settings
from app.documents import Job, cancellation_document, status_document, status_url
from app.errors import UploadMissing
from app.schemas import Cancellation, StatusDocument
from app.storage import removed
from app.tasks.base import Task


def router(_tasks: tuple[Task[Any], ...], _settings: Settings) -> APIRouter:
    """`POST /jobs/{job_id}/cancel`, `POST /jobs/{job_id}/retry` and `DELETE /jobs/{job_id}`."""
    routes = APIRouter(tags=["jobs"])

    @routes.post(
        "/jobs/{job_id}/cancel",
        summary="Cancel a job.",
        responses={
            200: openapi.answer("What became of it.", examples.CANCELLATION),
            **openapi.problems(errors.JobNotFound, errors.JobGone),
        },
    )
    async def cancel(job_id: str, service: ServiceDep) -> Cancellation:
        """At once while it waits, within seconds while it runs. Identical jobs that share its run go on."""
        return cancellation_document(job_id, await service.jobs.cancel(job_id))

    @routes.post(
        "/jobs/{job_id}/retry",
        summary="Try a failed job again.",
        status_code=202,
        response_model=StatusDocument,
        responses={
            202: openapi.answer(
                "Queued again, under its id.",
                examples.RETRIED,
                headers={"Location": openapi.header("The job's status.")},
            ),
            **openapi.problems(
                errors.JobNotFound, errors.NotFailed, errors.UploadMissing, errors.JobGone, errors.QueueFull
            ),
        },
    )
    async def retry(job_id: str, service: ServiceDep) -> Response:
        """Its `attempts` go on counting; what it may fail and crash counts anew."""
        failed = await service.jobs.get(job_id)
        if failed.error and not await _has_picture(failed, service):
            raise UploadMissing(UploadMissing.SENTENCE)
        job = await service.jobs.retry(failed)
        headers = {"Location": status_url(job_id)}
        return JSONResponse(status_document(job).model_dump(mode="json"), status_code=202, headers=headers)

    @routes.delete(
        "/jobs/{job_id}",
        summary="Erase a job.",
        status_code=204,
        response_class=Response,
        responses={**openapi.problems(errors.JobNotFound, errors.JobGone)},
    )
    async def erase(job_id: str, service: ServiceDep) -> Response:
        """Its picture, its files and its result go at once; what still runs or waits comes to nothing.

        A picture that identical jobs still need goes when they have ended.
        """
        if await service.jobs.erase(job_id):
            await to_thread.run_sync(removed, partial(service.storage.erase, job_id))
        return Response(status_code=204)

    return routes


async def _has_picture(job: Job, service: Service) -> bool:
    """Whether there is something to work on; a URL's picture is fetched again."""
    if job.record.url is not None:
        return True
    return await to_thread.run_sync(service.storage.holds, job.record.path)
