"""The errors a client can meet, each a sentence, a stable code and an HTTP status.

The same tree serves both ends of a job. Raised in the API, an error is rendered as RFC 9457; raised in a worker, Celery
stores its class name and message, and `describe` turns them back into what the client may see. Every error takes
exactly one message, so that Celery can rebuild it.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ErrorDescription:
    """What a client may know of a failed job."""

    code: str
    message: str
    retryable: bool


class AppError(Exception):
    """Something this service knows how to explain to its client."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    #: Whether the same request may succeed later, unchanged.
    retryable: ClassVar[bool] = False
    #: Sent as `Retry-After`, in seconds, when set.
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def description(self) -> ErrorDescription:
        """The error as it is told beside others."""
        return ErrorDescription(code=self.code, message=self.message, retryable=self.retryable)


class InternalError(AppError):
    """A fault of ours; the cause is in the log, never in the answer."""

    retryable = True
    SENTENCE: ClassVar[str] = "Something went wrong on our side. Try again; if it persists, tell the operator."


class BadRequest(AppError):
    """The request is not of the form this call takes."""

    code = "bad_request"
    http_status = 400
    title = "Bad request"


class UrlRefused(AppError):
    """A picture's URL, or one that it redirects to, is not to be fetched."""

    code = "url_refused"
    http_status = 403
    title = "URL refused"
    #: The same for a name that does not exist: which internal names do is nobody's business.
    SENTENCE: ClassVar[str] = "The host does not resolve to a public address. Give a URL that anybody can reach."


class NotFound(AppError):
    """No such address."""

    code = "not_found"
    http_status = 404
    title = "Not found"


class JobNotFound(AppError):
    """No job has this id."""

    code = "job_not_found"
    http_status = 404
    title = "Job not found"
    SENTENCE: ClassVar[str] = "There is no job with this id. Check the id, or submit the image again."


class RangeNotSatisfiable(AppError):
    """The range of bytes is none of the file's."""

    code = "range_not_satisfiable"
    http_status = 416
    title = "The range is not satisfiable"


class MethodNotAllowed(AppError):
    """The address exists, the method does not."""

    code = "method_not_allowed"
    http_status = 405
    title = "Method not allowed"


class JobFailed(AppError):
    """The result of a failed job was asked for."""

    code = "job_failed"
    http_status = 409
    title = "The job failed"


class JobCancelled(AppError):
    """The result of a cancelled job was asked for."""

    code = "job_cancelled"
    http_status = 409
    title = "The job was cancelled"


class NotFailed(AppError):
    """Another try was asked for of a job that has not failed."""

    code = "not_failed"
    http_status = 409
    title = "The job has not failed"
    SENTENCE: ClassVar[str] = "The job has not failed. Only failed jobs can be tried again."


class IdempotencyInFlight(AppError):
    """A request with the same idempotency key is still being answered."""

    code = "idempotency_in_flight"
    http_status = 409
    title = "The request is being answered"
    retryable = True
    retry_after_s = 1
    SENTENCE: ClassVar[str] = "A request with this Idempotency-Key is being answered. Send it again in a moment."


class IdempotencyMismatch(AppError):
    """The idempotency key was used before, for another request."""

    code = "idempotency_mismatch"
    http_status = 422
    title = "The idempotency key was used for another request"
    SENTENCE: ClassVar[str] = (
        "This Idempotency-Key was used for another picture or other options. Send a new key with a new request."
    )


class JobGone(AppError):
    """The job existed; its results have expired or were erased."""

    code = "job_gone"
    http_status = 410
    title = "The job is gone"
    SENTENCE: ClassVar[str] = "This job has expired or was erased, and so were its results. Submit the image again."


class FileTooLarge(AppError):
    """A file is larger than `MAX_FILE_SIZE`, or a request than it may be."""

    code = "file_too_large"
    http_status = 413
    title = "The file is too large"


class UnsupportedImage(AppError):
    """The bytes are not of a format on the whitelist."""

    code = "unsupported_image"
    http_status = 415
    title = "Unsupported image"


class InvalidImage(AppError):
    """An image of a known format that is damaged, empty or too large in pixels."""

    code = "invalid_image"
    http_status = 422
    title = "Invalid image"


class InvalidOption(AppError):
    """An option is unknown or out of range."""

    code = "invalid_option"
    http_status = 422
    title = "Invalid option"


class BrokerUnavailable(AppError):
    """Redis does not answer, or refuses to write."""

    code = "broker_unavailable"
    http_status = 503
    title = "The queue is unavailable"
    retryable = True
    retry_after_s = 5
    SENTENCE: ClassVar[str] = "The queue does not answer at the moment. Try again in a few seconds."


class QueueFull(AppError):
    """As many jobs wait as may."""

    code = "queue_full"
    http_status = 503
    title = "The queue is full"
    retryable = True
    #: What is said where the pace of the queue is not known.
    UNKNOWN_S: ClassVar[int] = 30
    LONGEST_S: ClassVar[int] = 600
    retry_after_s: int | None = UNKNOWN_S

    def __init__(self, message: str, *, retry_after_s: int = UNKNOWN_S) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServiceStopping(AppError):
    """The process that was to answer stops; another one takes the next request."""

    code = "service_stopping"
    http_status = 503
    title = "The service is stopping"
    retryable = True
    retry_after_s = 1
    SENTENCE: ClassVar[str] = "The request was not finished before this server had to stop. Send it again."


class ModelUnavailable(AppError):
    """No worker can do this task, or none has the model that was asked for."""

    code = "model_unavailable"
    http_status = 503
    title = "The model is unavailable"
    retryable = True
    retry_after_s = 30


class QueueTimeout(AppError):
    """The job waited longer than `QUEUE_TTL`."""

    code = "queue_timeout"
    title = "The job waited too long"
    retryable = True

    @staticmethod
    def sentence(queue_ttl_s: int) -> str:
        """How long was too long, in seconds, and what to do."""
        return f"The job waited longer than {queue_ttl_s} s for a worker. Submit the image again."


class TimeLimit(AppError):
    """The job ran longer than `TASK_TIME_LIMIT`."""

    code = "time_limit"
    title = "The job took too long"
    SENTENCE: ClassVar[str] = (
        "The job ran longer than the time limit and was stopped. Ask for less, or send a smaller picture."
    )


class WorkerCrashed(AppError):
    """The process that ran the job died."""

    code = "worker_crashed"
    title = "The worker process died"
    retryable = True
    SENTENCE: ClassVar[str] = (
        "The process that ran the job died, time and again. Send another picture, or retry the job later."
    )


class OutOfMemory(AppError):
    """The job needed more memory than its worker has."""

    code = "out_of_memory"
    title = "Out of memory"
    SENTENCE: ClassVar[str] = "The job needed more memory than its worker has. Send a smaller picture."


class UploadMissing(AppError):
    """The upload is no longer where it was stored."""

    code = "upload_missing"
    http_status = 409
    title = "The upload is missing"
    SENTENCE: ClassVar[str] = "The picture of this job is no longer there. Submit the image again."


class DownloadFailed(AppError):
    """A picture's URL did not give a picture; the same URL would fail again."""

    code = "download_failed"
    title = "The download failed"


class ModelError(AppError):
    """The model could not process this image; the same image would fail again."""

    code = "model_error"
    title = "The model failed"


class TransientError(AppError):
    """An input, output or network failure that may pass: the job is tried again, then fails with this."""

    code = "transient_error"
    title = "A passing failure"
    retryable = True


class DeviceOutOfMemory(TransientError):
    """The accelerator had no memory left for this job."""

    code = "device_out_of_memory"
    title = "The device is out of memory"


class DiskFull(TransientError):
    """There is too little room on the disk for another upload."""

    code = "disk_full"
    http_status = 503
    title = "The disk is full"
    retry_after_s = 60
    SENTENCE: ClassVar[str] = "There is no room for another picture at the moment. Tell the operator, or try later."


#: Failures that Celery itself writes, from outside the task body.
_CELERY_FAILURES: dict[str, tuple[type[AppError], str]] = {
    "TimeLimitExceeded": (TimeLimit, TimeLimit.SENTENCE),
    "SoftTimeLimitExceeded": (TimeLimit, TimeLimit.SENTENCE),
    "WorkerLostError": (WorkerCrashed, WorkerCrashed.SENTENCE),
    "Terminated": (WorkerCrashed, WorkerCrashed.SENTENCE),
}


def _tree(root: type[AppError]) -> dict[str, type[AppError]]:
    return {root.__name__: root, **{name: cls for sub in root.__subclasses__() for name, cls in _tree(sub).items()}}


def describe(exception_name: str, message: str) -> ErrorDescription:
    """What to tell the client of a job that ended with this exception.

    `exception_name` is the class name as Celery stored it. Only the messages of our own errors are passed on: anything
    else could carry a path or a secret of the server.
    """
    known = _tree(AppError).get(exception_name)
    if known is None:
        known, message = _CELERY_FAILURES.get(exception_name, (InternalError, InternalError.SENTENCE))
    return ErrorDescription(code=known.code, message=message, retryable=known.retryable)
