"""Following jobs: their status and their result."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator

from app import errors
from app.api import examples, openapi
from app.api.answers import DocumentResponse
from app.api.deps import ServiceDep
from app.api.errors import render
from app.config import Settings
from app.documents import Job, result_document, status_document
from app.errors import AppError, JobCancelled, JobFailed
from app.schemas import JobError, MissingJob, StatusDocument, StatusList
from app.states import Status, status_of
from app.tasks.base import Task

_MAX_IDS = 100
_RETRY_AFTER_S = 1

Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait before answering; 0 answers at once.")]


def _unique(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


Ids = Annotated[list[str], Query(alias="id", min_length=1, max_length=_MAX_IDS), AfterValidator(_unique)]


def router(tasks: tuple[Task[Any], ...], _settings: Settings) -> APIRouter:
    """`GET /status` and `GET /result`."""
    routes = APIRouter(tags=["jobs"])

    @routes.get(
        "/status",
        summary="Where many jobs are.",
        responses={
            200: openapi.answer("In the order asked for.", {"jobs": [examples.PROCESSING]}),
            **openapi.problems(errors.InvalidOption),
        },
    )
    async def statuses(service: ServiceDep, ids: Ids) -> StatusList:
        """Up to 100 ids in one call. A job that cannot be shown comes as its id and the reason."""
        found = await service.jobs.get_many(ids)
        return StatusList(jobs=[_entry(job_id, job) for job_id, job in zip(ids, found, strict=True)])

    @routes.get(
        "/status/{job_id}",
        summary="Where a job is.",
        response_model=StatusDocument,
        responses={
            200: openapi.answer("The job as it is now.", examples.PROCESSING),
            **openapi.problems(errors.JobNotFound, errors.JobGone, errors.InvalidOption),
        },
    )
    async def status(job_id: str, service: ServiceDep, wait: Wait = 0) -> Response:
        """With `wait`, answers at the job's next change, or at once if it has ended."""
        jobs = service.jobs
        job = await (jobs.next_change(job_id, timeout_s=wait) if wait else jobs.get(job_id))
        return DocumentResponse(status_document(job))

    @routes.get(
        "/result/{job_id}",
        summary="What a job gave.",
        response_model=None,
        responses={
            200: openapi.results(tasks),
            202: {
                **openapi.answer(
                    "Not ended yet; the status document.",
                    examples.PROCESSING,
                    headers={"Retry-After": openapi.header("Seconds.", "integer")},
                ),
                "model": StatusDocument,
            },
            **openapi.problems(
                errors.JobNotFound, errors.JobFailed, errors.JobCancelled, errors.JobGone, errors.InvalidOption
            ),
        },
    )
    async def result(job_id: str, service: ServiceDep, wait: Wait = 0) -> Response:
        """With `wait`, answers when the job ends, or with its status when the time is up."""
        jobs = service.jobs
        job = await (jobs.end(job_id, timeout_s=wait) if wait else jobs.get(job_id))
        return _result_answer(job)

    return routes


def _entry(job_id: str, found: Job | AppError) -> StatusDocument | MissingJob:
    if isinstance(found, Job):
        return status_document(found)
    return MissingJob(job_id=job_id, error=JobError(**vars(found.description)))


def _result_answer(job: Job) -> Response:
    match status_of(job.state):
        case Status.COMPLETED:
            return DocumentResponse(result_document(job))
        case Status.FAILED | Status.CANCELLED:
            return _no_result(job)
        case _:
            return DocumentResponse(status_document(job), status_code=202, headers={"Retry-After": str(_RETRY_AFTER_S)})


def _no_result(job: Job) -> Response:
    error = status_document(job).error
    problem = JobFailed(f"The job failed: {error.message}") if error else JobCancelled("The job was cancelled.")
    members = {"job_id": job.record.job_id, "error": error.model_dump() if error else None}
    return render(problem, members=members)
