"""Attempts that fail: sorting errors, the delays between attempts, and what is left of them."""

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.exceptions import Ignore
from PIL import Image

from app import keys, queues
from app.broker import CeleryApp
from app.config import Settings
from app.errors import AppError, DeviceOutOfMemory, InvalidImage, ModelError, OutOfMemory, TransientError
from app.registry import NewJob, read
from app.storage import Storage
from app.tasks.base import Answer, Attempt
from app.worker.run import Message, _backoff_s, _sorted, run_job
from app.worker.spent import Spent
from tests.backends import RESULT, request_of
from tests.clock import let_pass
from tests.fakes import Echo, FakeModel
from tests.pictures import png
from tests.records import accept, new_job


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidImage("Damaged."), "invalid_image"),
        (DeviceOutOfMemory("Full."), "device_out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (FileNotFoundError(2, "no", "/srv/secret"), "transient_error"),
        (PermissionError(13, "no", "/srv/secret"), "transient_error"),
        (ConnectionResetError(), "transient_error"),
        (TimeoutError(), "transient_error"),
        (ZeroDivisionError(), "model_error"),
    ],
)
def test_every_exception_becomes_an_error_of_ours(error: Exception, code: str) -> None:
    found = _sorted(error, "job")

    assert isinstance(found, AppError)
    assert found.code == code
    assert "/srv" not in found.message


def test_only_passing_failures_are_tried_again() -> None:
    assert isinstance(_sorted(OSError(), "job"), TransientError)
    assert isinstance(_sorted(DeviceOutOfMemory("Full."), "job"), TransientError)
    assert not isinstance(_sorted(MemoryError(), "job"), TransientError)
    assert not isinstance(_sorted(ZeroDivisionError(), "job"), TransientError)


@pytest.mark.parametrize(("retries", "most"), [(0, 60), (1, 120), (2, 240), (3, 240), (50, 240)])
def test_delays_double_to_a_limit_and_are_spread(retries: int, most: float) -> None:
    drawn = [_backoff_s(retries, first_s=60) for _ in range(200)]

    assert all(most / 2 <= delay <= most for delay in drawn)
    assert max(drawn) - min(drawn) > most / 4


class Failing(Echo):
    """Stores a file and fails."""

    def __init__(self, before_it_fails: Any) -> None:
        self._before_it_fails = before_it_fails

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        attempt.store("image.webp", lambda file: file.write(b"of the one that fails"))
        self._before_it_fails()
        raise ValueError("late")


def run(
    celery: CeleryApp, storage: Storage, job: NewJob, task: Failing, *, leaves_by: type[Exception] = ModelError
) -> None:
    upload = storage.resolve(job.path)
    upload.parent.mkdir(exist_ok=True)
    upload.write_bytes(png(8, 8))
    celery_task: Any = SimpleNamespace(app=celery, backend=celery.backend, request=SimpleNamespace(id=job.job_id))
    message = Message(task=task, path=job.path, options={}, model=None)
    with pytest.raises(leaves_by):
        run_job(celery_task, message, {"fake": FakeModel()}, storage, Spent(storage))


def test_a_failed_attempt_leaves_no_files(
    celery: CeleryApp, client: redis.Redis, storage: Storage, settings: Settings
) -> None:
    job = accept(client, settings, new_job(task="echo"))

    run(celery, storage, job, Failing(lambda: None))

    assert not storage.artifact(job.job_id, "image.webp").exists()


class UnsureAnswer(Answer):
    score: float


class Unsure(Failing):
    """Has an answer of which JSON knows nothing."""

    def predict(self, inputs: Image.Image, model: FakeModel, options: Any, attempt: Attempt) -> Image.Image:
        return inputs

    def postprocess(self, outputs: Image.Image, model: FakeModel, options: Any) -> Any:
        return UnsureAnswer(score=self._before_it_fails())


class HugeAnswer(Answer):
    def model_dump(self, **_: Any) -> dict[str, Any]:
        raise MemoryError


class Huge(Unsure):
    """Has an answer for which there is no memory."""

    def postprocess(self, outputs: Image.Image, model: FakeModel, options: Any) -> Any:
        return HugeAnswer()


def test_an_answer_for_which_there_is_no_memory_is_a_failure(
    celery: CeleryApp, client: redis.Redis, storage: Storage, settings: Settings
) -> None:
    run(celery, storage, accept(client, settings, new_job(task="echo")), Huge(lambda: None), leaves_by=OutOfMemory)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_a_failure_of_the_model(
    celery: CeleryApp, client: redis.Redis, storage: Storage, settings: Settings, number: float
) -> None:
    run(celery, storage, accept(client, settings, new_job(task="echo")), Unsure(lambda: number), leaves_by=ModelError)


def test_the_next_attempt_is_due_by_the_clock_of_redis(
    celery: CeleryApp,
    client: redis.Redis,
    storage: Storage,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = accept(client, settings, new_job(task="echo"))
    ahead_ns = time.time_ns() + 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: ahead_ns)

    def full() -> None:
        raise DeviceOutOfMemory("Full.")

    run(celery, storage, job, Failing(full), leaves_by=Ignore)

    found = read(client, job.job_id)
    assert found.started_at
    assert found.retry_at
    assert settings.retry_backoff_s / 2 <= (found.retry_at - found.started_at) / 1000 <= settings.retry_backoff_s + 5


def test_an_attempt_that_fails_after_another_has_completed_the_job_leaves_its_files_alone(
    celery: CeleryApp, client: redis.Redis, storage: Storage, settings: Settings
) -> None:
    job = accept(client, settings, new_job(task="echo"))

    def another_completes_it() -> None:
        let_pass(client, keys.LEASE_TTL_S + 1)  # the first was silent for longer than its lease lasts
        queues.requeue(client, job.job_id, queues.Why.LOST, app=celery)
        request = request_of(job.job_id, token="other:2")
        celery.backend.start(job.job_id, {"progress": 5}, request=request)
        storage.store_artifact(job.job_id, "image.webp", lambda file: file.write(b"of the one that completes"))
        celery.backend.store_result(job.job_id, RESULT, "SUCCESS", request=request)

    run(celery, storage, job, Failing(another_completes_it))

    assert storage.artifact(job.job_id, "image.webp").read_bytes() == b"of the one that completes"
