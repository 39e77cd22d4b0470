"""What Redis holds of a job, joined and made into the documents that clients read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, Self

from app import quick_json
from app.batch import Batch, BatchEntry
from app.errors import AppError, ErrorDescription, InternalError, describe
from app.registry import Found, JobRecord, Leaving
from app.schemas import (
    BatchCounts,
    BatchDocument,
    BatchedJob,
    BatchFile,
    BatchStatus,
    Cancellation,
    JobError,
    JobUrls,
    StatusDocument,
    iso,
)
from app.states import TERMINAL, State, Status, progress_in, status_of


@dataclass(frozen=True)
class Job:
    """A record and the state that belongs to it, read in one round trip."""

    found: Found
    state: State
    #: What the backend holds beside the state: progress, a result, or an exception.
    value: dict[str, Any]

    @classmethod
    def join(cls, found: Found) -> Self:
        """Join a record and Celery's meta document."""
        if not found.meta:
            return cls(found, State.PENDING, {})
        document: dict[str, Any] = quick_json.loads(found.meta)
        return cls(found, State(document["status"]), document["result"] or {})

    @property
    def job_id(self) -> str:
        """Its id."""
        return self.found.fields["job_id"]

    @property
    def cached(self) -> bool:
        """Whether an earlier job's result was taken for it."""
        return "cached" in self.found.fields

    @cached_property
    def record(self) -> JobRecord:
        """Its record, which nobody asks for where a submission is waited for."""
        return JobRecord.from_fields(self.found.fields)

    @property
    def position(self) -> int | None:
        """Jobs that start before it; None once started."""
        return self.found.ahead

    @property
    def eta_ms(self) -> float | None:
        """Until it ends, as things go; None where that is not known, and once it has ended."""
        return _eta_ms(self.state, self.record, self.found)

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in TERMINAL

    @property
    def error(self) -> ErrorDescription | None:
        """Why the job failed, if it did."""
        if self.state is not State.FAILURE:
            return None
        arguments = self.value.get("exc_message") or [InternalError.SENTENCE]
        return describe(self.value.get("exc_type", ""), str(arguments[0]))

    @property
    def progress(self) -> int | None:
        """Percent of the current attempt; None for a job that ended without a result."""
        if self.state is State.SUCCESS:
            return 100
        if self.ended:
            return None
        if self.state in (State.PENDING, State.RETRY):
            return 0
        return int(self.value.get("progress", progress_in(self.state)))


def _eta_ms(state: State, record: JobRecord, found: Found) -> float | None:
    if state in TERMINAL or found.duration_ms is None:
        return None
    if state is State.PENDING:
        return None if found.wait_ms is None else found.wait_ms + found.duration_ms
    if state is State.RETRY:
        return max(0, (record.retry_at or 0) - found.now_ms) + found.duration_ms
    return max(0, (record.started_at or found.now_ms) + found.duration_ms - found.now_ms)


def status_document(job: Job) -> StatusDocument:
    """Where a job is."""
    record, error, eta_ms = job.record, job.error, job.eta_ms
    return StatusDocument(
        job_id=record.job_id,
        task=record.task,
        status=status_of(job.state),
        state=job.state,
        progress=job.progress,
        queue_position=job.position,
        eta_s=None if eta_ms is None else round(eta_ms / 1000, 3),
        coalesced_with=record.run_id,
        attempts=record.attempts,
        retry_at=_moment(record.retry_at),
        filename=record.filename,
        submitted_at=_moment(record.submitted_at),
        started_at=_moment(_own_start(record)),
        updated_at=_moment(max(record.updated_at, record.submitted_at)),
        finished_at=_moment(record.finished_at),
        expires_at=_moment(record.expires_at),
        error=_job_error(error),
        urls=_urls(record.job_id),
    )


def result_document(job: Job) -> dict[str, Any]:
    """What a completed job gave: the fields of `ResultDocument` as JSON has them, then the task's own.

    Nothing is checked against these schemas once more: the worker has made each part by them.
    """
    record = job.record
    if status_of(job.state) is not Status.COMPLETED or record.finished_at is None:
        raise ValueError(f"job {record.job_id} is not completed")
    timings = {"queued_ms": 0, "download_ms": 0, **job.value["timings"], **_own_timings(record, record.finished_at)}
    common = {
        "job_id": record.job_id,
        "task": record.task,
        "model": job.value["model"],
        "timings": {name: float(milliseconds) for name, milliseconds in timings.items()},
        "image": vars(record.image) if record.image else job.value["image"],
        "attempts": record.attempts,
        "cached": record.cached,
        "coalesced_with": record.run_id,
        "submitted_at": iso(_moment(record.submitted_at)),
        "finished_at": iso(_moment(record.finished_at)),
    }
    # A task's own fields come last, and replace none.
    return {**common, **job.value["answer"], **common}


def _own_timings(record: JobRecord, finished_at: int) -> dict[str, int]:
    """What differs between the jobs of one run, by when they were submitted. A cached result keeps that run's own."""
    if record.total_ms is not None:
        return {"total_ms": record.total_ms}
    total = {"total_ms": finished_at - record.submitted_at}
    if record.run_id is None or record.started_at is None:
        return total
    return {**total, "queued_ms": max(0, record.started_at - record.submitted_at)}


def artifact_type(job: Job, name: str) -> str | None:
    """The content type of a file that came with a job's result; None if none of this name did."""
    artifacts = job.value["answer"].get("artifacts", []) if job.state is State.SUCCESS else []
    return next((str(artifact["content_type"]) for artifact in artifacts if artifact["name"] == name), None)


def batch_document(batch: Batch) -> BatchDocument:
    """What became of each file of a submission."""
    files = [
        BatchFile(index=index, filename=entry.filename, job_id=entry.job_id, error=_job_error(entry.error))
        for index, entry in enumerate(batch.entries)
    ]
    return BatchDocument(batch_id=batch.batch_id, task=batch.task, url=batch_url(batch.batch_id), jobs=files)


def batch_status(batch: Batch, found: Sequence[Job | AppError]) -> BatchStatus:
    """Where a batch is; `found` are the jobs of its accepted files, in their order."""
    jobs = iter(found)
    entries = [
        _batched_job(index, entry, next(jobs) if entry.job_id is not None else None)
        for index, entry in enumerate(batch.entries)
    ]
    counts = BatchCounts.model_validate(Counter(str(entry.status) for entry in entries))
    return BatchStatus(batch_id=batch.batch_id, task=batch.task, counts=counts, jobs=entries)


def _batched_job(index: int, entry: BatchEntry, found: Job | AppError | None) -> BatchedJob:
    status: Literal["refused", "gone"] | Status = "refused" if found is None else "gone"
    progress, error, filename = None, entry.error, entry.filename
    if isinstance(found, Job):
        status, progress, error = status_of(found.state), found.progress, found.error
        filename = found.record.filename
    elif found is not None:
        error = found.description
    return BatchedJob(
        index=index,
        filename=filename,
        job_id=entry.job_id,
        status=status,
        progress=progress,
        error=_job_error(error),
        urls=None if entry.job_id is None else _urls(entry.job_id),
    )


_OUTCOMES: dict[Leaving, Literal["cancelled", "cancellation_requested", "already_ended"]] = {
    Leaving.CANCELLED: "cancelled",
    Leaving.REQUESTED: "cancellation_requested",
    Leaving.ENDED: "already_ended",
}


def cancellation_document(job_id: str, leaving: Leaving) -> Cancellation:
    """What became of a job that was to be cancelled."""
    return Cancellation(job_id=job_id, outcome=_OUTCOMES[leaving], urls=_urls(job_id))


def batch_url(batch_id: str) -> str:
    """Where a batch's status is, relative to the service."""
    return f"/batches/{batch_id}"


def _urls(job_id: str) -> JobUrls:
    return JobUrls(status=status_url(job_id), result=f"/result/{job_id}", cancel=f"/jobs/{job_id}/cancel")


def _job_error(error: ErrorDescription | None) -> JobError | None:
    return None if error is None else JobError(**vars(error))


def status_url(job_id: str) -> str:
    """Where a job's status is, relative to the service."""
    return f"/status/{job_id}"


def _own_start(record: JobRecord) -> int | None:
    """When work for a job began: not before it was there, though the run that it shares may have."""
    return None if record.started_at is None else max(record.started_at, record.submitted_at)


def _moment(milliseconds: int | None) -> Any:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
