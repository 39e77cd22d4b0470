"""What a worker process does around the body of a task."""

import json
import logging
from typing import Any

import pytest
import redis
from celery.app.trace import build_tracer
from celery.exceptions import Ignore

from app import keys
from app.broker import CeleryApp
from app.config import Settings
from app.errors import AppError, InvalidImage
from app.registry import NewJob
from app.worker.tracer import tracer
from tests.backends import RESULT
from tests.records import accept

TOKEN = "worker:1"


@pytest.fixture
def job(client: redis.Redis, settings: Settings) -> NewJob:
    return accept(client, settings)


def attempt(celery: CeleryApp, job: NewJob, body: Any, *, by: Any = tracer) -> Any:
    """Run a body as Celery's worker runs it, in a process that has made the run its own."""

    def start_and_run(celery_task: Any, path: str, *, options: dict[str, Any], model: str | None) -> Any:
        celery_task.request.run_token = TOKEN
        celery_task.backend.start(job.job_id, {"progress": 5}, request=celery_task.request)
        return body()

    celery.tasks.pop(job.task, None)
    task = celery.task(start_and_run, bind=True, name=job.task, throws=(AppError,))
    request = {"id": job.job_id, "task": job.task, "hostname": "here", "delivery_info": {"routing_key": job.task}}
    return by(task)(job.job_id, [job.path], {"options": job.options, "model": None}, request)


def by_celery(task: Any) -> Any:
    return build_tracer(task.name, task, app=task.app)


def kept(client: redis.Redis, job: NewJob) -> Any:
    return json.loads(str(client.get(keys.meta(job.job_id))))


def fail() -> None:
    raise InvalidImage("Damaged.")


def drop() -> None:
    raise Ignore


@pytest.mark.parametrize("body", [lambda: RESULT, dict, fail, drop])
def test_a_job_ends_as_celery_would_end_it(
    celery: CeleryApp, client: redis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    caplog.set_level(logging.INFO)
    ends = []
    for by in (by_celery, tracer):
        job = accept(client, settings)
        caplog.clear()
        told = attempt(celery, job, body, by=by)
        meta, line = kept(client, job), caplog.records[-1]
        error = told[0].exception if told[1] else None
        meta["date_done"] = bool(meta["date_done"])
        meta["traceback"] = bool(meta["traceback"])
        texts = json.dumps([meta, line.levelname, line.getMessage().split(" in ")[0], repr(error)])
        ends.append(json.loads(texts.replace(job.path, "path").replace(job.job_id, "id")))

    assert ends[0] == ends[1]


def test_a_result_is_shown_in_part(celery: CeleryApp, job: NewJob, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    result, error, took_s, shown = attempt(celery, job, lambda: {"text": "x" * 100})

    assert (result, error) == ({"text": "x" * 100}, None)
    assert 0 < took_s < 5
    assert len(shown) == 64
    assert shown.endswith("xxx...")
    assert f"[{job.job_id}] succeeded in {took_s}s: {shown}" in caplog.text


def test_a_result_that_cannot_be_kept_fails_the_job(celery: CeleryApp, client: redis.Redis, job: NewJob) -> None:
    _, error, *_ = attempt(celery, job, lambda: {"odd": object()})

    assert error.state == kept(client, job)["status"] == "FAILURE"


def test_a_result_may_hold_what_is_no_text_of_unicode(celery: CeleryApp, client: redis.Redis, job: NewJob) -> None:
    attempt(celery, job, lambda: {"text": "\ud800"})

    assert kept(client, job)["result"] == {"text": "\ud800"}


def lack(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(("body", "state"), [(lack, "FAILURE"), (lambda: RESULT, "SUCCESS")])
def test_a_lack_of_memory_ends_the_job_and_not_the_worker(
    celery: CeleryApp, client: redis.Redis, job: NewJob, body: Any, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.tracer._shown", lack)

    told, *_ = attempt(celery, job, body)

    assert "OutOfMemory" in repr(told.exception)
    assert kept(client, job)["status"] == state
    assert celery.tasks[job.task].request_stack.top is None
