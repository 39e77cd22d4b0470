"""`run_job`, the body of every Celery task: one attempt at one job.

fetch the picture, if a URL was given (DOWNLOADING) → open and preprocess it (PREPROCESSING) → predict (INFERENCE) →
postprocess (POSTPROCESSING) → the returned dict, which Celery stores as the result. What leaves the body is an error of
ours, which Celery stores as the failure, or Ignore or Reject, which store nothing.
"""

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, BinaryIO

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task as CeleryTask
from celery.exceptions import Ignore

from app.backend import Start, Write
from app.broker import CeleryApp
from app.config import Settings
from app.errors import (
    AppError,
    ModelError,
    OutOfMemory,
    QueueTimeout,
    TimeLimit,
    TransientError,
    UploadMissing,
)
from app.registry import ImageFacts
from app.schemas import file_url
from app.states import State
from app.storage import Storage, removed
from app.tasks.base import Answer, StoredFile, Task
from app.worker.deadline import deadline
from app.worker.fetching import fetch_picture
from app.worker.identity import token_of
from app.worker.models import Models, choose
from app.worker.progress import Fenced, Progress
from app.worker.spent import Spent

logger = logging.getLogger(__name__)

_DEADLINE_LAG_S = 1
#: Delays double, but to no more than this many times the first.
_MAX_BACKOFF_FACTOR = 4


def register(app: CeleryApp, task: Task[Any], *, models: Models, storage: Storage, spent: Spent) -> None:
    """Make a task one that this worker's Celery can run."""

    def body(celery_task: CeleryTask, path: str, *, options: dict[str, Any], model: str | None) -> dict[str, Any]:
        loaded = models.require(task)
        message = Message(task=task, path=path, options=options, model=model)
        return run_job(celery_task, message, loaded, storage, spent)

    app.task(
        body,
        bind=True,
        name=task.name,
        Request="app.worker.request:JobRequest",
        throws=(AppError,),
    )


@dataclass(frozen=True)
class Message:
    """What is asked for."""

    task: Task[Any]
    #: The upload, relative to the storage root.
    path: str
    options: dict[str, Any]
    #: Public name of the model; None for the default.
    model: str | None


def run_job(
    celery_task: CeleryTask, message: Message, loaded: Mapping[str, Any], storage: Storage, spent: Spent
) -> dict[str, Any]:
    """Try a job once. Raises `AppError` for a failure that stands, `Ignore` to have nothing stored."""
    request = celery_task.request
    request.run_token = token_of(os.getpid())
    progress = Progress(celery_task.backend, request)
    attempt = _Attempt(request.id, progress, storage, celery_task.app.settings)
    request.when_written = partial(_tidy, attempt, spent, message.path)
    start: Start | None = None
    try:
        start = progress.start()
        began_s = time.monotonic()
        _check_wait(start, attempt.settings.queue_ttl)
        if start.attempts > 1:
            storage.discard_attempts(request.id)
        model = choose(loaded, message.model)
        # A little after Celery's own.
        with progress.told(), deadline(attempt.settings.soft_time_limit + _DEADLINE_LAG_S):
            image = _fetch(start.url, message, attempt) if start.url else None
            answer = _work(message, model, attempt)
        queued_ms = start.started_at - start.submitted_at
        result = {
            "model": model.info.model_dump(),
            "answer": answer.model_dump(mode="json"),
            "timings": {"queued_ms": queued_ms, **progress.timings},
            **({"image": asdict(image)} if image else {}),
        }
    except Fenced as lost:
        logger.info("%s, this copy is dropped", lost)
        _clean_up(attempt, lost.outcome)
        raise Ignore from None
    except Exception as error:  # noqa: BLE001  # whatever a task raises ends as an error of ours
        failure = _sorted(error, request.id)
        if start is not None and isinstance(failure, TransientError):
            _retry(celery_task, start, failure, worked_s=time.monotonic() - began_s)
        if start is not None:
            _discard(attempt)
        raise failure from None
    return result


@dataclass(frozen=True)
class _Attempt:
    """What a task may do while it works on a job."""

    job_id: str
    progress: Progress
    storage: Storage
    settings: Settings

    def report(self, fraction: float) -> None:
        """Tell how much of the stage is done."""
        self.progress.report(fraction)

    def store(self, name: str, write: Callable[[BinaryIO], object]) -> StoredFile:
        """Keep a file with the result."""
        self.progress.report(0)  # raises once the job is known to be lost
        size = self.storage.store_artifact(self.job_id, name, write)
        return StoredFile(name=name, url=file_url(self.job_id, name), bytes=size)


def _tidy(attempt: _Attempt, spent: Spent, path: str, state: State, outcome: Write) -> None:
    if outcome is not Write.STORED:
        _clean_up(attempt, outcome)
    elif state is State.SUCCESS:
        spent.add(path)


def _clean_up(attempt: _Attempt, outcome: Write) -> None:
    """Remove what nobody will ask for any more. The files of others' attempts are theirs."""
    if outcome is Write.GONE:  # what was stored since it was erased
        removed(partial(attempt.storage.erase, attempt.job_id))
    elif outcome is Write.CANCELLED:
        removed(partial(attempt.storage.discard_attempts, attempt.job_id))


def _discard(attempt: _Attempt) -> None:
    """Remove what a failed attempt leaves, unless somebody else has gone on with the job, or completed it, since."""
    try:
        if attempt.progress.confirm():
            removed(partial(attempt.storage.discard_attempts, attempt.job_id))
    except Fenced as lost:
        logger.info("%s, its files are left alone", lost)


def _fetch(url: str, message: Message, attempt: _Attempt) -> ImageFacts:
    attempt.progress.enter(State.DOWNLOADING)
    image = fetch_picture(
        url,
        job_id=attempt.job_id,
        path=message.path,
        storage=attempt.storage,
        settings=attempt.settings,
        report=attempt.report,
    )
    attempt.progress.note("download_ms")
    return image


def _work(message: Message, model: Any, attempt: _Attempt) -> Answer:
    task, progress = message.task, attempt.progress
    options = task.options.model_validate(message.options)
    task.check(options, tuple(model.labels.values()))
    progress.enter(State.PREPROCESSING)
    image = _decode(message, model, options, attempt)
    progress.note("decode_ms")
    inputs = task.preprocess(image, model, options)
    del image  # the work may need the memory: 50 million pixels take 200 MB
    progress.enter(State.INFERENCE, after="preprocess_ms")
    outputs = task.predict(inputs, model, options, attempt)
    progress.enter(State.POSTPROCESSING, after="inference_ms")
    answer = task.postprocess(outputs, model, options)
    progress.note("postprocess_ms")
    return answer


def _decode(message: Message, model: Any, options: Any, attempt: _Attempt) -> Any:
    upload = attempt.storage.resolve(message.path)
    try:
        return message.task.decode(upload, model, options, max_pixels=attempt.settings.max_pixels)
    except FileNotFoundError:
        raise UploadMissing(UploadMissing.SENTENCE) from None


def _check_wait(start: Start, queue_ttl_s: int) -> None:
    if start.waiting_since is not None and start.started_at - start.waiting_since > queue_ttl_s * 1000:
        raise QueueTimeout(QueueTimeout.sentence(queue_ttl_s))


def _sorted(error: Exception, job_id: str) -> AppError:
    """The error of ours that stands for whatever was raised: transient ones are tried again, others are not."""
    match error:
        case AppError():
            return error
        case SoftTimeLimitExceeded():
            return TimeLimit(TimeLimit.SENTENCE)
        case MemoryError():  # Celery would raise it again in the main process and take the worker down
            return OutOfMemory(OutOfMemory.SENTENCE)
        case OSError():
            logger.warning("job %s: %s", job_id, error)
            return TransientError("Reading or writing a file, or reaching the network, failed.")
        case _:
            logger.error("job %s: the model failed", job_id, exc_info=error)
            return ModelError("The model could not process this picture.")


def _retry(celery_task: CeleryTask, start: Start, error: TransientError, *, worked_s: float) -> None:
    """Put the job aside until its next attempt is due, and leave the body; or return, when there is none left.

    Celery's own retry would hold the message in this worker's memory, outside of every lease. Ours is a state and a due
    time in Redis; a keeper publishes the job when it is due.
    """
    settings, request = celery_task.app.settings, celery_task.request
    if start.retries >= settings.task_max_retries:
        return
    backoff_s = _backoff_s(start.retries, first_s=settings.retry_backoff_s)
    # By the clock of Redis, as the moment of the start is: this machine's may be set otherwise.
    due = start.started_at + round((worked_s + backoff_s) * 1000)
    # Waits for Redis if it is away: until this is stored, the message stays unacknowledged.
    celery_task.backend.store_result(request.id, error, State.RETRY, request=request, retry_at_ms=due)
    raise Ignore


def _backoff_s(retries: int, *, first_s: float) -> float:
    """Exponential backoff with equal jitter: half of the delay is certain, half is drawn."""
    delay: float = first_s * min(2**retries, _MAX_BACKOFF_FACTOR)
    return delay / 2 + random.uniform(0, delay / 2)  # noqa: S311  # spreads load, guards nothing
