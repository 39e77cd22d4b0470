"""`run_job`, the body of every Celery task: one attempt at one job.

open the picture and preprocess it (PREPROCESSING) → predict (INFERENCE) → postprocess (POSTPROCESSING) → the returned
dict, which Celery stores as the result. What leaves the body is an error of ours, which Celery stores as the failure,
or Ignore or Reject, which store nothing.
"""

import logging
import os
import random
from dataclasses import dataclass, field
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task as CeleryTask
from celery.exceptions import Ignore
from PIL import Image

from app import imaging
from app.broker import CeleryApp
from app.errors import (
    AppError,
    ModelError,
    OutOfMemory,
    QueueTimeout,
    TimeLimit,
    TransientError,
    UploadMissing,
)
from app.registry import JobRecord, now_ms
from app.states import State
from app.storage import Storage
from app.tasks.base import Answer, Options, Task
from app.worker.identity import token_of
from app.worker.models import Models
from app.worker.progress import Fenced, Progress

logger = logging.getLogger(__name__)

#: Delays double, but to no more than this many times the first.
_MAX_BACKOFF_FACTOR = 4


def register(app: CeleryApp, task: Task[Any], *, models: Models, storage: Storage) -> None:
    """Make a task one that this worker's Celery can run."""

    def body(celery_task: CeleryTask, path: str, *, options: dict[str, Any]) -> dict[str, Any]:
        model = models.require(task.name)
        upload = _Upload(storage, path, max_pixels=app.settings.max_pixels)
        return run_job(celery_task, task, model, upload, options)

    app.task(body, bind=True, name=task.name, Request="app.worker.request:JobRequest", throws=(AppError,))


@dataclass(frozen=True)
class _Upload:
    """The picture a message names."""

    storage: Storage
    path: str
    max_pixels: int = field(kw_only=True)

    def open(self) -> Image.Image:
        """Upright, RGB. Raises `InvalidImage`, or `OSError` for faults that are not the picture's."""
        return imaging.open_image(self.storage.resolve(self.path), max_pixels=self.max_pixels)


def run_job(
    celery_task: CeleryTask, task: Task[Any], model: Any, upload: _Upload, options: dict[str, Any]
) -> dict[str, Any]:
    """Try a job once. Raises `AppError` for a failure that stands, `Ignore` to have nothing stored."""
    request = celery_task.request
    request.run_token = token_of(os.getpid())
    progress = Progress(celery_task.backend, request)
    record: JobRecord | None = None
    try:
        record = progress.start()
        _check_wait(record, celery_task.app.settings.queue_ttl)
        answer = _attempt(task, model, upload, task.options.model_validate(options), progress)
    except Fenced as lost:
        logger.info("%s, this copy is dropped", lost)
        raise Ignore from None
    except Exception as error:  # noqa: BLE001  # whatever a task raises ends as an error of ours
        failure = _sorted(error, request.id)
        if record is not None and isinstance(failure, TransientError):
            _retry(celery_task, record, failure)
        raise failure from None
    # The two moments are two machines' clocks.
    queued_ms = max(0, (record.started_at or 0) - record.submitted_at)
    timings = {"queued_ms": queued_ms, **progress.timings}
    return {"model": model.info.model_dump(), "answer": answer.model_dump(mode="json"), "timings": timings}


def _attempt(task: Task[Any], model: Any, upload: _Upload, options: Options, progress: Progress) -> Answer:
    progress.enter(State.PREPROCESSING)
    with progress.measure("decode_ms"):
        image = upload.open()
    with progress.measure("preprocess_ms"):
        inputs = task.preprocess(image, model, options)
    progress.enter(State.INFERENCE)
    with progress.measure("inference_ms"):
        outputs = task.predict(inputs, model, options, progress.report)
    progress.enter(State.POSTPROCESSING)
    with progress.measure("postprocess_ms"):
        return task.postprocess(outputs, model, options)


def _check_wait(record: JobRecord, queue_ttl_s: int) -> None:
    if record.attempts == 1 and now_ms() - record.submitted_at > queue_ttl_s * 1000:
        raise QueueTimeout(f"The job waited longer than {queue_ttl_s} s for a worker. Submit the image again.")


def _sorted(error: Exception, job_id: str) -> AppError:
    """The error of ours that stands for whatever was raised: transient ones are tried again, others are not."""
    match error:
        case AppError():
            return error
        case SoftTimeLimitExceeded():
            return TimeLimit(TimeLimit.SENTENCE)
        case MemoryError():  # Celery would raise it again in the main process and take the worker down
            return OutOfMemory("The job needed more memory than its worker has. Send a smaller picture.")
        case FileNotFoundError():
            return UploadMissing("The upload was erased before the job could run. Submit the image again.")
        case OSError():
            logger.warning("job %s: %s", job_id, error)
            return TransientError("Reading the picture or reaching the network failed.")
        case _:
            logger.error("job %s: the model failed", job_id, exc_info=error)
            return ModelError("The model could not process this picture.")


def _retry(celery_task: CeleryTask, record: JobRecord, error: TransientError) -> None:
    """Put the job aside until its next attempt is due, and leave the body; or return, when there is none left.

    Celery's own retry would hold the message in this worker's memory, outside of every lease. Ours is a state and a due
    time in Redis; a keeper publishes the job when it is due.
    """
    settings, request = celery_task.app.settings, celery_task.request
    if record.retries >= settings.task_max_retries:
        return
    due = now_ms() + round(_backoff_s(record.retries, first_s=settings.retry_backoff_s) * 1000)
    # Waits for Redis if it is away: until this is stored, the message stays unacknowledged.
    celery_task.backend.store_result(request.id, error, State.RETRY, request=request, retry_at_ms=due)
    raise Ignore


def _backoff_s(retries: int, *, first_s: float) -> float:
    """Exponential backoff with equal jitter: half of the delay is certain, half is drawn."""
    delay: float = first_s * min(2**retries, _MAX_BACKOFF_FACTOR)
    return delay / 2 + random.uniform(0, delay / 2)  # noqa: S311  # spreads load, guards nothing
